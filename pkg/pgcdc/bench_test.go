package pgcdc

import (
	"context"
	"encoding/binary"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// BenchmarkStream reads rows of 200 bytes from a slot into a feed that drops them. Beside the time for a row it reports the
// CPU time of this process, which leaves the server's out.
func BenchmarkStream(b *testing.B) {
	db := newDatabase(b, pgtest.Database(b))
	db.exec(`CREATE TABLE rows (id bigint PRIMARY KEY, customer int, status text, total numeric(12,2), at timestamptz, note text)`)
	s := newStore(b)
	source := db.source()
	r := s.startConfirming(source, 0, nothing)
	r.streaming()
	if err := r.stop(); err != nil {
		b.Fatal(err)
	}
	const each = 10_000
	for n := 0; n < b.N; n += each {
		db.exec(`INSERT INTO rows SELECT n, n % 1000, 'shipped', n / 7.0, now(), repeat('x', 130) FROM generate_series($1::int, $2::int) n`, n, min(n+each, b.N)-1)
	}
	ctx, cancel := context.WithCancel(b.Context())
	feed := ingest.NewFeed(16 << 20)
	done := make(chan error, 1)
	before := cpu(b)
	b.ResetTimer()
	go func() { done <- source.Run(ctx, s.where(), feed) }()
	bytes := 0
	for got := 0; got < b.N; {
		batches, err := feed.Take(ctx)
		if err != nil {
			b.Fatal(err)
		}
		for _, batch := range batches {
			got += len(batch.Items)
			bytes += len(batch.Buf)
			feed.Stored(batch)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
	b.SetBytes(int64(bytes / b.N))
	cancel()
	<-done
}

func cpu(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkDecode decodes inserts of such rows, without a server.
func BenchmarkDecode(b *testing.B) {
	d, rel := newTestDecoder(nil)
	benchmarkDecode(b, d, insertMessage(rel, "123456", "77", "shipped", "17636.57", "2026-11-23 08:45:53.123456+00", string(make130())))
}

// benchmarkDecode decodes a change again and again, to its envelope.
func benchmarkDecode(b *testing.B, d *decoder, message []byte) {
	b.Helper()
	buf := make([]byte, 0, 1<<20)
	d.put = func(_ context.Context, c *change) error {
		buf = events.AppendChange(buf[:0], &c.Change)
		return nil
	}
	ctx := b.Context()
	if err := d.decode(ctx, beginMessage(1000)); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := d.decode(ctx, message); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDecodeHundredColumns decodes inserts of a hundred columns, numbers and short texts by turns.
func BenchmarkDecodeHundredColumns(b *testing.B) {
	d, _ := newTestDecoder(nil)
	rel, values := newRelation(16386, "public", "wide", identityDefault), make([]string, 100)
	for i := range values {
		typ := builtinTypes[23]
		if values[i] = fmt.Sprint(123456 + i); i%2 == 0 {
			typ, values[i] = builtinTypes[25], fmt.Sprintf("value %d", i)
		}
		rel.columns = append(rel.columns, newColumn(fmt.Sprintf("column_%02d", i), typ, i == 1))
	}
	rel.setKey([]string{"column_01"})
	rel.published = true
	d.relations[rel.oid] = rel
	benchmarkDecode(b, d, insertMessage(rel, values...))
}

func TestTheDecoderAllocatesNothing(t *testing.T) {
	d, rel := newTestDecoder(func(_ context.Context, c *change) error { return nil })
	buf := make([]byte, 0, 1<<20)
	d.put = func(_ context.Context, c *change) error {
		buf = events.AppendChange(buf[:0], &c.Change)
		return nil
	}
	insert := insertMessage(rel, "123456", "77", "shipped", "17636.57", "2026-11-23 08:45:53.123456+00", string(make130()))
	if err := d.decode(t.Context(), beginMessage(1000)); err != nil {
		t.Fatal(err)
	}
	allocated := testing.AllocsPerRun(1000, func() {
		if err := d.decode(t.Context(), insert); err != nil {
			t.Fatal(err)
		}
	})
	if allocated > 0 {
		t.Errorf("%v allocations for a row of six columns", allocated)
	}
}

func make130() []byte {
	text := make([]byte, 130)
	for i := range text {
		text[i] = 'x'
	}
	return text
}

func beginMessage(commit uint64) []byte {
	m := binary.BigEndian.AppendUint64([]byte{'B'}, commit)
	m = binary.BigEndian.AppendUint64(m, 0)
	return binary.BigEndian.AppendUint32(m, 771)
}

func insertMessage(rel *relation, values ...string) []byte {
	m := binary.BigEndian.AppendUint32([]byte{'I'}, rel.oid)
	m = binary.BigEndian.AppendUint16(append(m, 'N'), uint16(len(values)))
	for _, value := range values {
		m = binary.BigEndian.AppendUint32(append(m, 't'), uint32(len(value)))
		m = append(m, value...)
	}
	return m
}

// newTestDecoder makes a decoder that knows one table.
func newTestDecoder(put func(context.Context, *change) error) (*decoder, *relation) {
	rel := newRelation(16385, "public", "rows", identityDefault)
	for i, c := range []struct {
		name string
		oid  uint32
	}{{"id", 20}, {"customer", 23}, {"status", 25}, {"total", 1700}, {"at", 1184}, {"note", 25}} {
		rel.columns = append(rel.columns, newColumn(c.name, builtinTypes[c.oid], i == 0))
	}
	rel.setKey([]string{"id"})
	rel.published = true
	var none *Metrics
	metrics := none.of("shop")
	d := &decoder{
		rowEncoder: rowEncoder{refresh: func(_ context.Context, t *Type) (*Type, error) { return t, nil }, textValues: metrics.textValues},
		source:     "shop", incarnation: 1, partitions: 16, put: put, heartbeat: func([]byte) {}, metrics: metrics, sieve: &sieve{metrics: metrics},
		own: func(context.Context, ownTransaction) error { return nil }, touched: func(context.Context, events.Op, *relation, uint32, []field, []field) error { return nil },
		emptied: func(*relation, uint32) {},
		renew:   func(context.Context, *relation, events.LSN) error { return nil },
		describe: func(_ context.Context, w *wireRelation, _ bool) (*relation, error) {
			r := newRelation(w.oid, w.schema, w.table, w.identity)
			for _, c := range w.columns {
				r.columns = append(r.columns, newColumn(c.name, &Type{}, c.identity))
			}
			r.setKey(nil)
			r.published = true
			return r, nil
		},
	}
	d.init()
	d.relations[rel.oid] = rel
	return d, rel
}
