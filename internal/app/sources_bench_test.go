package app

import (
	"testing"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/pgcdc"
)

// BenchmarkFilter is what a filter costs an event: by its table and operation alone, and by its row.
func BenchmarkFilter(b *testing.B) {
	data := `{"op":"update","schema":"public","table":"orders","key":{"id":42},"before":{"id":42,"status":"packed","total":19.90},"after":{"id":42,"status":"shipped","total":19.90},"changed":["status"],"tx":{"id":771,"commit_lsn":"0/16B37488","index":3,"last":false}}`
	envelope := `{"specversion":"1.0","id":"shop-1-0000000016B37488-771-3","source":"/tributary/shop","type":"tributary.row.update.v1","data":` + data + `}`
	c := &pgcdc.Candidate{Op: events.OpUpdate, Schema: "public", Table: "orders", Envelope: []byte(envelope), Data: []byte(data)}
	for name, text := range map[string]string{
		"table": `table != "sessions" && op != "delete"`,
		"row":   `op != "update" || changed("status") && after.total > 10`,
	} {
		b.Run(name, func(b *testing.B) {
			keep, err := keepWhere(text)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if kept, err := keep(c); err != nil || !kept {
					b.Fatal(kept, err)
				}
			}
		})
	}
}
