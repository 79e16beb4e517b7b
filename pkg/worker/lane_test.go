package worker

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// bench is a scheduler whose effects block until they are let go.
type bench struct {
	*scheduler
	set laneSet

	mu    sync.Mutex
	begun []string
	gates map[string]chan time.Duration
}

func newBench(slots int) *bench {
	b := &bench{gates: make(map[string]chan time.Duration)}
	b.scheduler = newScheduler(slots, func(x *effect) time.Duration {
		b.mu.Lock()
		b.begun = append(b.begun, x.key)
		gate := b.gates[x.key]
		b.mu.Unlock()
		return <-gate
	})
	return b
}

func (b *bench) put(lane, endpoint string, names ...string) {
	for _, name := range names {
		b.mu.Lock()
		b.gates[name] = make(chan time.Duration, 1)
		b.mu.Unlock()
		b.add(&b.set, &effect{key: name, set: &b.set, lane: laneKey{key: lane}, endpoint: endpoint})
		synctest.Wait() // so that what begins at once begins in this order
	}
}

// end lets an effect end, and gives all that have begun then.
func (b *bench) end(name string, again time.Duration) {
	b.mu.Lock()
	gate := b.gates[name]
	b.mu.Unlock()
	gate <- again
	synctest.Wait()
}

func (b *bench) expect(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.begun, want) {
		t.Fatalf("begun: %v, want %v", b.begun, want)
	}
}

func TestLaneIsInOrderAndLanesAreParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(8)
		b.put("x", "e", "x1", "x2")
		b.put("y", "e", "y1")
		b.expect(t, "x1", "y1")
		b.end("x1", 0)
		b.expect(t, "x1", "y1", "x2")
		b.end("y1", 0)
		b.end("x2", 0)
		if busy, lanes := b.load(); busy != 0 || lanes != 0 || len(b.endpoints) != 0 {
			t.Errorf("%d slots, %d lanes, %d endpoints are left", busy, lanes, len(b.endpoints))
		}
		b.close()
	})
}

func TestEndpointLeavesSlotsToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(4)
		for _, lane := range []string{"a", "b", "c", "d"} {
			b.put(lane, "hung", lane)
		}
		b.expect(t, "a", "b", "c") // with 3 of 4 it has reached twice the one that is free
		b.put("e", "well", "e")
		b.expect(t, "a", "b", "c", "e")
		b.put("f", "well", "f")
		b.expect(t, "a", "b", "c", "e")
		b.end("e", 0)
		b.expect(t, "a", "b", "c", "e", "f")
		for _, name := range []string{"a", "b", "c", "f", "d"} {
			b.end(name, 0)
		}
		b.close()
	})
}

func TestEffectThatIsPutOffKeepsItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(1)
		b.put("x", "e", "x1", "x2")
		b.expect(t, "x1")
		b.end("x1", time.Minute)
		b.put("y", "e", "y1") // the slot is free meanwhile
		b.expect(t, "x1", "y1")
		b.end("y1", 0)
		b.expect(t, "x1", "y1")
		time.Sleep(time.Minute) // of the bubble's clock
		b.expect(t, "x1", "y1", "x1")
		b.end("x1", 0)
		b.expect(t, "x1", "y1", "x1", "x2")
		b.end("x2", 0)
		b.close()
	})
}

func TestDroppedEffectsDoNotBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(1)
		b.put("x", "e", "x1", "x2")
		b.put("y", "e", "y1", "y2")
		b.expect(t, "x1")
		if dropped := b.drop(&b.set); len(dropped) != 3 {
			t.Errorf("%d effects are dropped, want 3", len(dropped))
		}
		b.put("y", "other", "y3") // its lane may still be listed with the endpoint of y1
		b.end("x1", 0)
		b.expect(t, "x1", "y3")
		b.end("y3", 0)
		b.close()
		if _, lanes := b.load(); lanes != 0 {
			t.Errorf("%d lanes are left", lanes)
		}
	})
}

func TestClosedSchedulerBeginsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(1)
		b.put("x", "e", "x1", "x2")
		b.expect(t, "x1")
		closed := make(chan struct{})
		go func() {
			b.close()
			close(closed)
		}()
		synctest.Wait()
		b.end("x1", 0)
		<-closed
		b.expect(t, "x1")
	})
}
