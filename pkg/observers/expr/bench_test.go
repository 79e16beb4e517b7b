package expr_test

import (
	"testing"
)

func BenchmarkCondition(b *testing.B) {
	c := condition(b, `changed("status") && after.status == "shipped" && after.total > 10`)
	in := input("update", orderUpdate)
	if ok, err := c.Eval(in); !ok || err != nil {
		b.Fatal(ok, err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if ok, err := c.Eval(in); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkDecodeData(b *testing.B) {
	c := condition(b, `after.id == 42`)
	b.SetBytes(int64(len(orderUpdate)))
	b.ReportAllocs()
	for b.Loop() {
		if ok, err := c.Eval(input("update", orderUpdate)); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkDecodeEnvelope(b *testing.B) {
	c := condition(b, `event.type == "tributary.row.update.v1" && after.id == 42`)
	b.ReportAllocs()
	for b.Loop() {
		if ok, err := c.Eval(input("update", orderUpdate)); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkBody(b *testing.B) {
	env := environment(b)
	body, err := env.CompileJSON(`{"order": after.id, "state": after.status, "row": after}`)
	if err != nil {
		b.Fatal(err)
	}
	in := input("update", orderUpdate)
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		if dst, err = body.Append(dst[:0], in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCompileCondition(b *testing.B) {
	env := environment(b)
	for b.Loop() {
		if _, err := env.CompileCondition(`changed("status") && after.status == "shipped"`); err != nil {
			b.Fatal(err)
		}
	}
}
