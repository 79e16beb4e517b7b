package events_test

import (
	"testing"

	"github.com/tributary-dev/tributary/pkg/events"
)

func BenchmarkParse(b *testing.B) {
	envelope := events.AppendChange(nil, example())
	b.SetBytes(int64(len(envelope)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := events.Parse(envelope); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRow(b *testing.B) {
	e, err := events.Parse(events.AppendChange(nil, example()))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.Row(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendChange(b *testing.B) {
	change := example()
	dst := make([]byte, 0, 2048)
	b.ReportAllocs()
	for b.Loop() {
		dst = events.AppendChange(dst[:0], change)
	}
	b.SetBytes(int64(len(dst)))
}

func BenchmarkAppendPublished(b *testing.B) {
	for name, message := range map[string]events.Published{
		"plain":      published(nil, `{"invoice":7,"amount":19.90,"paid":true}`),
		"structured": published(structured, head[:len(head)-1]+`,"data":{"invoice":7,"amount":19.90,"paid":true}}`),
	} {
		b.Run(name, func(b *testing.B) {
			var dst []byte
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if dst, err = events.AppendPublished(dst[:0], message); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
