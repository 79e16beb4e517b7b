package indexer

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// item is an event between its delivery and its end here.
type item struct {
	sequence uint64 // in EVENTS
	event    Message
	document Document
	size     int
	since    time.Time // of the delivery, or of the last sign of life; guarded by held's mu
	reply    string    // where the latest delivery is answered; guarded by held's mu
}

// overhead is what an item takes beside its bytes.
const overhead = 1024

// held is what was delivered and is not settled, bounded by bytes.
type held struct {
	nc      *nats.Conn
	most    int
	metrics *Metrics
	freed   chan struct{} // room for one signal that there is room again

	mu    sync.Mutex
	items map[uint64]*item // by sequence; guarded by mu, as is bytes
	bytes int
}

func newHeld(nc *nats.Conn, most int, metrics *Metrics) *held {
	return &held{nc: nc, most: most, metrics: metrics, freed: make(chan struct{}, 1), items: map[uint64]*item{}}
}

// add holds an item. It says no where the event is held already: the server had not heard of it for a while, and is
// answered under its latest delivery.
func (h *held) add(it *item) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if there, ok := h.items[it.sequence]; ok {
		there.reply, there.since = it.reply, it.since
		return false
	}
	h.items[it.sequence] = it
	h.bytes += it.size
	h.metrics.heldBytes.Set(float64(h.bytes))
	return true
}

// settle acknowledges an event whose outcome is known, and lets go of it. An acknowledgement that is lost lets the
// event come again, and the index says then that it has it.
func (h *held) settle(it *item) {
	h.mu.Lock()
	delete(h.items, it.sequence)
	h.bytes -= it.size
	h.metrics.heldBytes.Set(float64(h.bytes))
	reply := it.reply
	h.mu.Unlock()
	_ = h.nc.Publish(reply, ack)
	select {
	case h.freed <- struct{}{}:
	default:
	}
}

// The answers to a delivery.
var (
	ack        = []byte("+ACK")
	nak        = []byte("-NAK")
	inProgress = []byte("+WPI")
)

// room waits until there are at least so many bytes of room, or nothing is held, and gives them; 0 when ctx has ended.
func (h *held) room(ctx context.Context, least int) int {
	for {
		h.mu.Lock()
		room, empty := h.most-h.bytes, len(h.items) == 0
		h.mu.Unlock()
		if room >= least {
			return room
		}
		if empty {
			return least
		}
		select {
		case <-ctx.Done():
			return 0
		case <-h.freed:
		}
	}
}

// heartbeat tells the server from time to time that what is held here for longer is alive.
func (h *held) heartbeat(every time.Duration) func(context.Context) {
	return func(ctx context.Context) {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-ticker.C:
				h.extend(now, every)
			}
		}
	}
}

func (h *held) extend(now time.Time, every time.Duration) {
	if !h.nc.IsConnected() {
		return // what is sent now would be told when it is not true any more
	}
	var replies []string
	h.mu.Lock()
	for _, it := range h.items {
		if now.Sub(it.since) >= every {
			it.since = now
			replies = append(replies, it.reply)
		}
	}
	h.mu.Unlock()
	for _, reply := range replies {
		_ = h.nc.Publish(reply, inProgress)
	}
}

// startAll starts functions that end with ctx, or before it, and gives who waits for them.
func startAll(ctx context.Context, all ...func(context.Context)) *sync.WaitGroup {
	var group sync.WaitGroup
	for _, one := range all {
		group.Go(func() { one(ctx) })
	}
	return &group
}
