package worker

import (
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
)

// line follows the events of one dedupkv.Line through this worker: how far they are settled without a gap. Events come
// in ascending order from the reset point on, and all before that point are settled.
type line struct {
	id      dedupkv.Line
	loaded  bool              // known was read under the present hold
	known   dedupkv.Watermark // as it is stored
	reached events.Sequence   // every event at or below it is settled
	open    fifo[*entry]      // what came above reached, settled or not, in order
	passed  fifo[passed]      // at or below reached, above known
	free    []settledRecord   // at or below reached, of which the ledger has not heard
}

// ledgered tells whether the claims of its effects lie in a ledger: those of rows do.
func (l *line) ledgered() bool { return l.id.Incarnation > 0 }

// passed is an event whose records are needed until the watermark is saved.
type passed struct {
	at      events.Sequence
	records []settledRecord
}

type settledRecord struct {
	key      string
	result   dedupkv.Result
	ledgered bool // in the partition's ledger, under id
	id       dedupkv.ID
}

// restart forgets what is open: it is delivered again. What was reached stays true.
func (l *line) restart() {
	l.open = fifo[*entry]{}
	l.loaded = false
}

// load takes in the watermark as it is stored.
func (l *line) load(known dedupkv.Watermark) {
	l.loaded = true
	l.saved(known)
}

// past tells whether an event is settled for ever.
func (l *line) past(at events.Sequence) bool { return at.Compare(l.reached) <= 0 }

// append takes in the next event.
func (l *line) append(e *entry) { l.open.push(e) }

// advance moves over what is settled, and gives each event it passes to done.
func (l *line) advance(done func(*entry)) {
	for l.open.len() > 0 && l.open.first().settled {
		e := l.open.pop()
		if l.reached.Compare(e.at) < 0 {
			l.reached = e.at
		}
		switch {
		case l.ledgered():
			l.free = append(l.free, e.records...)
		case len(e.records) > 0:
			l.passed.push(passed{at: e.at, records: e.records})
		}
		done(e)
	}
}

// unsaved tells whether the watermark is above the one that is stored.
func (l *line) unsaved() bool { return l.reached.Compare(l.known.At) > 0 }

// saved takes in that known is stored, and gives the records that nobody needs any more.
func (l *line) saved(known dedupkv.Watermark) (free []settledRecord) {
	l.known = known
	if l.reached.Compare(known.At) < 0 { // the last owner came further than was known here
		l.reached = known.At
	}
	for l.passed.len() > 0 && l.passed.first().at.Compare(known.At) <= 0 {
		free = append(free, l.passed.pop().records...)
	}
	return free
}
