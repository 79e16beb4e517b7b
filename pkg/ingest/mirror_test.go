package ingest_test

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// memory is a mirror that holds what it was given, unless it is away.
type memory struct {
	mu    sync.Mutex
	saved []ingest.Position
	away  bool
	calls int
}

var errAway = errors.New("the mirror is away")

func (m *memory) Last(context.Context) (ingest.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	if m.away {
		return ingest.Position{}, errAway
	}
	if len(m.saved) == 0 {
		return ingest.Position{}, nil
	}
	return m.saved[len(m.saved)-1], nil
}

func (m *memory) Save(_ context.Context, p ingest.Position) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	if m.away {
		return errAway
	}
	m.saved = append(m.saved, p)
	return nil
}

func (m *memory) setAway(away bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = away
}

func (m *memory) all() []ingest.Position {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.saved)
}

func (m *memory) called() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

// script is a source that hands its session to the test.
type script struct{ sessions chan session }

type session struct {
	state ingest.State
	feed  *ingest.Feed
}

func newScript() *script { return &script{sessions: make(chan session, 10)} }

func (*script) Name() string { return "shop" }

func (s *script) Run(ctx context.Context, state ingest.State, feed *ingest.Feed) error {
	s.sessions <- session{state, feed}
	<-ctx.Done()
	return nil
}

// mirrored starts script under a mirror, and gives its first session.
func (w *world) mirrored(t *testing.T, m *memory, wait time.Duration, source ingest.Source) {
	t.Helper()
	w.pipeline = func() *ingest.Pipeline {
		nc := w.server.Conn(t, nats.ReconnectBufSize(-1))
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := js.Stream(t.Context(), events.StreamEvents)
		if err != nil {
			t.Fatal(err)
		}
		return ingest.NewPipeline(nc, stream, ingest.Options{
			Leader: "leader", Log: slog.New(slog.DiscardHandler), Metrics: w.metrics,
			Mirrors: map[string]ingest.Mirror{"shop": m}, MirrorWait: wait,
		})
	}
	w.lead(t, source)
}

// put stores a position, or an event where commit is not 0.
func (s session) put(t *testing.T, p ingest.Position, commit events.LSN) {
	t.Helper()
	b := s.feed.Batch()
	if commit != 0 {
		b.Items = append(b.Items, changeItem(b, commit))
	}
	if p.Phase != "" {
		b.Items = append(b.Items, ingest.Item{Mark: &p})
	}
	if err := s.feed.Put(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := s.feed.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func changeItem(b *ingest.Batch, commit events.LSN) ingest.Item {
	c := events.Change{
		ID: events.AppendChangeID(nil, "shop", 1, commit, 7, 1), Source: "shop", Op: events.OpInsert, Time: time.Unix(1, 0).UTC(),
		Schema: "public", Table: "orders", Sequence: events.Sequence{Commit: uint64(commit), Index: 1}, InTransaction: true, XID: 7,
		Commit: commit, Last: true, PartitionKey: []byte("public.orders/1"), Key: []byte(`{"id":1}`), After: []byte(`{"id":1}`),
	}
	start := len(b.Buf)
	b.Buf = events.AppendChange(b.Buf, &c)
	subject := events.Address{Source: "shop", Schema: "public", Table: "orders", Op: events.OpInsert}.Subject()
	return ingest.Item{Subject: subject, Data: b.Buf[start:], At: c.Sequence, XID: 7, Through: commit + 1}
}

func (w *world) gauge(t *testing.T, name string) float64 {
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func streaming(end events.LSN) ingest.Position {
	return ingest.Position{Incarnation: 1, SystemID: "7", Timeline: 1, Slot: "s", Phase: ingest.PhaseStreaming, CommitLSN: 10, EndLSN: end}
}

func TestConfirmationsWaitForTheMirror(t *testing.T) {
	w, m, source := newWorld(t, natstest.Start(t)), new(memory), newScript()
	w.mirrored(t, m, time.Hour, source)
	s := <-source.sessions
	s.put(t, streaming(11), 0)
	eventually(t, "the mirror has it, and it is confirmed", func() bool { return s.feed.Confirmable() == 11 })
	m.setAway(true)
	s.put(t, ingest.Position{}, 100)
	before := w.metric(t, "tributary_ingest_mirror_failures_total")
	eventually(t, "the mirror failed twice", func() bool { return w.metric(t, "tributary_ingest_mirror_failures_total") >= before+2 })
	if got := s.feed.Confirmable(); got != 11 {
		t.Errorf("%s may be forgotten, and the mirror ends at 0/B", got)
	}
	if w.count(t) != 1 {
		t.Error("the mirror held publishing up")
	}
	m.setAway(false)
	eventually(t, "the event is confirmed", func() bool { return s.feed.Confirmable() == 101 })
	if last := m.all()[len(m.all())-1]; last.CommitLSN != 100 || last.EndLSN != 101 {
		t.Errorf("the mirror has %+v", last)
	}
}

func TestConfirmationsWaitForTheMirrorNoLongerThanTheirBound(t *testing.T) {
	w, m, source := newWorld(t, natstest.Start(t)), new(memory), newScript()
	w.mirrored(t, m, 300*time.Millisecond, source)
	s := <-source.sessions
	s.put(t, streaming(11), 0)
	eventually(t, "it is confirmed", func() bool { return s.feed.Confirmable() == 11 })
	m.setAway(true)
	s.put(t, ingest.Position{}, 100)
	eventually(t, "the event is confirmed without the mirror", func() bool { return s.feed.Confirmable() == 101 })
	if w.gauge(t, "tributary_ingest_mirror_late_seconds") < 0.3 {
		t.Error("the metric does not say that the mirror is late")
	}
	m.setAway(false)
	eventually(t, "the mirror comes after", func() bool { return w.gauge(t, "tributary_ingest_mirror_late_seconds") == 0 })
}

func TestAMirrorIsToldOfEachStateAndOfNoMovingEnd(t *testing.T) {
	w, m, source := newWorld(t, natstest.Start(t)), new(memory), newScript()
	w.mirrored(t, m, time.Hour, source)
	s := <-source.sessions
	for i, phase := range []ingest.Phase{ingest.PhaseSetup, ingest.PhaseSnapshot, ingest.PhaseStreaming} {
		p := streaming(events.LSN(11 + i))
		p.Phase = phase
		s.put(t, p, 0)
	}
	eventually(t, "all are saved", func() bool { return len(m.all()) == 3 })
	for end := events.LSN(20); end < 30; end++ {
		s.put(t, streaming(end), 0)
		eventually(t, "the end is confirmed", func() bool { return s.feed.Confirmable() == end })
	}
	var phases []ingest.Phase
	for _, p := range m.all() {
		phases = append(phases, p.Phase)
	}
	if want := []ingest.Phase{ingest.PhaseSetup, ingest.PhaseSnapshot, ingest.PhaseStreaming}; !slices.Equal(phases, want) {
		t.Errorf("the mirror was told %v, want %v", phases, want)
	}
}

func TestLeadersOfARemadeStreamComeAfterThoseInTheMirror(t *testing.T) {
	w, source := newWorld(t, natstest.Start(t)), newScript()
	known := streaming(11)
	known.Epoch, known.Incarnation = 41, 6
	m := &memory{saved: []ingest.Position{known}}
	w.mirrored(t, m, time.Hour, source)
	state := (<-source.sessions).state
	if state.Position.Epoch != 42 || state.Position.Phase != "" || !reflect.DeepEqual(state.Mirrored, known) {
		t.Errorf("the source begins with %+v", state)
	}
}

func TestAFirstStartWaitsForAMirrorThatIsAway(t *testing.T) {
	w, m, source := newWorld(t, natstest.Start(t)), &memory{away: true}, newScript()
	w.mirrored(t, m, time.Hour, source)
	eventually(t, "the mirror was asked twice", func() bool { return m.called() >= 2 })
	if len(source.sessions) > 0 {
		t.Fatal("the source began as if it had never been")
	}
	m.setAway(false)
	s := <-source.sessions
	s.put(t, streaming(11), 0)
	eventually(t, "the mirror has it", func() bool { return len(m.all()) == 1 })
}

func TestALaterSessionDoesNotWaitForAMirrorThatIsAway(t *testing.T) {
	w, m, source := newWorld(t, natstest.Start(t)), new(memory), newScript()
	w.mirrored(t, m, time.Hour, source)
	s := <-source.sessions
	s.put(t, streaming(11), 0)
	m.setAway(true)
	w.lead(t, source) // deposes the first
	if state := (<-source.sessions).state; state.Position.Phase != ingest.PhaseStreaming {
		t.Errorf("the next session begins with %+v", state)
	}
}

// outside is the connection of one who sets positions by hand.
func (w *world) outside(t *testing.T) (*nats.Conn, jetstream.Stream) {
	t.Helper()
	stream, err := w.js.Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	return w.server.Conn(t), stream
}

func TestResetOfAStreamThatLostItsPositionsCountsOnFromTheMirror(t *testing.T) {
	w := newWorld(t, natstest.Start(t))
	nc, stream := w.outside(t)
	if _, err := ingest.Reset(t.Context(), nc, stream, "shop", "ann", ingest.Position{}); err == nil {
		t.Error("a source that was never set up was reset")
	}
	known := streaming(11)
	known.Epoch, known.Incarnation = 41, 6
	reset, err := ingest.Reset(t.Context(), nc, stream, "shop", "ann", known)
	if err != nil || reset.Incarnation != 7 || reset.Epoch != 42 || reset.Phase != ingest.PhaseSetup {
		t.Errorf("got %+v, %v", reset, err)
	}
}

func TestAPlaceBeforeTheEndOfTheStreamIsRefused(t *testing.T) {
	w, source := newWorld(t, natstest.Start(t)), newScript()
	w.lead(t, source)
	s := <-source.sessions
	s.put(t, streaming(11), 0)
	s.put(t, ingest.Position{}, 100)
	nc, stream := w.outside(t)
	place := func(commit, end events.LSN, incarnation uint64, phase ingest.Phase) error {
		p := streaming(end)
		p.CommitLSN, p.Index, p.Incarnation, p.Phase = commit, 1, incarnation, phase
		_, err := ingest.Place(t.Context(), nc, stream, "shop", "ann", ingest.Position{}, p)
		return err
	}
	for name, err := range map[string]error{
		"an earlier commit":      place(99, 200, 1, ingest.PhaseStreaming),
		"an earlier end":         place(100, 100, 1, ingest.PhaseStreaming),
		"an earlier incarnation": place(300, 301, 0, ingest.PhaseStreaming),
		"within a snapshot":      place(300, 301, 1, ingest.PhaseSnapshot),
	} {
		if err == nil {
			t.Errorf("%s was set", name)
		}
	}
	s.put(t, ingest.Position{}, 200) // the leader was not disturbed
	if err := place(300, 301, 1, ingest.PhaseStreaming); err != nil {
		t.Fatal(err)
	}
	w.lead(t, source)
	if state := (<-source.sessions).state; state.Last.Commit != 300 || state.Through != 301 {
		t.Errorf("the next leader begins with %+v", state)
	}
}
