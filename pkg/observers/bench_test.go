package observers_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers"
)

// many makes n observers of which five concern updates of public.orders: three by name, two by pattern.
func many(n int) string {
	var b strings.Builder
	b.WriteString("observers:\n")
	for i := range n {
		table := fmt.Sprintf("public.table_%d", i)
		switch {
		case i < 3:
			table = "public.orders"
		case i < 5:
			table = "public.*"
		}
		fmt.Fprintf(&b, "  - name: o%d\n    match: {source: shop, entity: %s, ops: [insert, update]}\n"+
			"    when: changed(\"status\") && after.status == \"shipped\"\n"+
			"    actions: [{name: note, type: log, message: \"order ${after.id}\"}]\n", i, table)
	}
	return b.String()
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			set := parse(b, many(n))
			v := view(b, events.OpUpdate, packed, shipped)
			b.ReportAllocs()
			for b.Loop() {
				if got := set.Match(v); len(got) != 5 {
					b.Fatal(names(got))
				}
			}
		})
	}
}

func BenchmarkMatchNone(b *testing.B) {
	set := parse(b, many(10_000))
	v := viewAt(b, events.Address{Source: "crm", Schema: "public", Table: "orders", Op: events.OpUpdate}, packed, shipped)
	b.ReportAllocs()
	for b.Loop() {
		if got := set.Match(v); len(got) != 0 {
			b.Fatal(names(got))
		}
	}
}

func BenchmarkParse(b *testing.B) {
	for _, n := range []int{10, 1_000} {
		text := []byte(many(n))
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if _, err := observers.Parse("observers.yaml", text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRenderWebhook(b *testing.B) {
	list := parse(b, webhooks).Observers()[0].Actions
	v := view(b, events.OpUpdate, packed, shipped)
	for _, a := range list {
		b.Run(a.Name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := a.Render(v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
