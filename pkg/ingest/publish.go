package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
)

const (
	// MaxBatchItems is how many items one Batch may have at most. A batch within it and MaxBatchBytes is stored whole
	// or not at all when it ends with a mark; others may be cut.
	MaxBatchItems = 999
	// MaxBatchBytes bounds the envelopes of such a batch.
	MaxBatchBytes = 4 << 20

	maxAtomic   = 1000 // the server's bound for one atomic batch
	nuidLen     = 22   // of the end of a leader's name
	fewerSingly = 16   // below, messages one by one are stored sooner than an atomic batch
)

// group is what is stored in one step: some items, and behind them a position where one of them is a mark.
type group struct {
	items []Item // events alone
	marks []placedMark
	bytes int
}

// placedMark is a mark, its place in a group, and where the batch that it ends begins there: what lies between is stored
// with it or not at all, since it may be what the mark alone remembers.
type placedMark struct {
	from, behind int // items
	position     *Position
}

func (g *group) empty() bool { return len(g.items) == 0 && len(g.marks) == 0 }

// add takes the next item of a batch, which begins in the group at from.
func (g *group) add(item *Item, from int) {
	if item.Mark != nil {
		g.marks = append(g.marks, placedMark{from: from, behind: len(g.items), position: item.Mark})
		return
	}
	g.items = append(g.items, *item)
	g.bytes += len(item.Data)
}

// mark is the position that storing g whole leaves behind; nil where that is no other than before.
func (g *group) mark() *Position {
	if len(g.marks) == 0 {
		return nil
	}
	return g.marks[len(g.marks)-1].position
}

// part is the beginning of g with up to atOnce items, or a few more where a mark holds them together.
func (g *group) part(atOnce int) group {
	cut := min(atOnce, len(g.items))
	for i := len(g.marks) - 1; i >= 0; i-- {
		if m := g.marks[i]; m.from < cut && cut < m.behind {
			cut = m.from
		}
	}
	if cut == 0 && len(g.marks) > 0 && g.marks[0].from == 0 {
		cut = g.marks[0].behind
	}
	part := group{items: g.items[:cut]}
	for _, m := range g.marks {
		if m.behind <= cut {
			part.marks = append(part.marks, m)
		}
	}
	return part
}

// drop removes the first items of g, and the marks that lie within the first of them.
func (g *group) drop(items, marks int) {
	g.items, g.marks = g.items[items:], slices.Clone(g.marks[marks:])
	for i := range g.marks {
		g.marks[i].from = max(g.marks[i].from-items, 0)
		g.marks[i].behind = max(g.marks[i].behind-items, 0)
	}
}

// fits tells whether batch can be stored in the same step.
func (g *group) fits(b *Batch) bool {
	return len(g.items)+len(b.Items) < maxAtomic && g.bytes+len(b.Buf) <= MaxBatchBytes
}

// store stores the items of the batches in order, in as few steps as the server's bounds allow. Without any it sees to it
// that what was stored before still is, since that is about to be confirmed.
func (f *fence) store(ctx context.Context, batches []*Batch) error {
	if err := f.checkEnd(ctx); err != nil {
		return err
	}
	var g group
	flush := func() error {
		if g.empty() {
			return nil
		}
		err := f.storeGroup(ctx, &g)
		g = group{items: g.items[:0], marks: g.marks[:0]}
		return err
	}
	for _, b := range batches {
		if !g.fits(b) {
			if err := flush(); err != nil {
				return err
			}
		}
		from := len(g.items)
		for i := range b.Items {
			full := len(g.items) >= MaxBatchItems || g.bytes > MaxBatchBytes // a batch larger than one step
			if full && b.Items[i].Mark == nil {                              // a mark stays with what it speaks of
				if err := flush(); err != nil {
					return err
				}
				from = 0
			}
			g.add(&b.Items[i], from)
		}
	}
	return flush()
}

// storeGroup stores g whole, however often it takes, and returns once it is stored. Doubts are settled by taking over.
// Where EVENTS has no room for all of it, fewer go at a time: otherwise a step larger than the room that the janitor makes
// would never be stored.
func (f *fence) storeGroup(ctx context.Context, g *group) error {
	if err := f.checkEnd(ctx); err != nil {
		return err
	}
	f.sending(len(g.items))
	defer f.sending(0)
	if err := f.count(ctx, g.mark()); err != nil {
		return err
	}
	atOnce := max(len(g.items), 1)
	for {
		err := f.tryPart(ctx, g, atOnce)
		switch {
		case err == nil && g.empty():
			return f.checkEnd(ctx)
		case err == nil:
			atOnce *= 2
		case errors.Is(err, errFull):
			f.metrics.full.Inc()
			atOnce = max(min(atOnce, len(g.items))/2, 1)
			if !sleep(ctx, fullPause) {
				return context.Cause(ctx)
			}
		case errors.Is(err, errAgain):
			if !sleep(ctx, 5*time.Millisecond) {
				return context.Cause(ctx)
			}
		case errors.Is(err, errDoubt), errors.Is(err, errStale):
			f.log.Debug("settling a doubt", "source", f.source, "err", err)
			if err := f.settle(ctx); err != nil {
				return err
			}
			f.dropStored(g)
		default:
			return fmt.Errorf("store events of %s: %w", f.source, err)
		}
	}
}

// count keeps the incarnation of a position before that is stored, and with it before any id that has it in it.
func (f *fence) count(ctx context.Context, mark *Position) error {
	if mark == nil || f.incarnations == nil || !f.ofEvents || mark.Incarnation <= f.incarnation {
		return nil
	}
	if err := f.incarnations.Raise(ctx, f.source, mark.Incarnation); err != nil {
		return fmt.Errorf("keep the incarnation of %s: %w", f.source, err)
	}
	f.incarnation = mark.Incarnation
	return nil
}

// tryPart stores about atOnce items of g, and removes from g what it stored.
func (f *fence) tryPart(ctx context.Context, g *group, atOnce int) error {
	part := g.part(atOnce)
	items, marks := len(part.items), len(part.marks)
	err := f.tryGroup(ctx, &part)
	g.drop(items-len(part.items), marks-len(part.marks))
	return err
}

// checkEnd reads the end of the stream again where a server may have come back with less than it had acknowledged: after
// the connection was lost, and where the last message is not there any more. It looks for that when nothing was
// acknowledged for a while, since the fence covers the position alone, and what was stored behind it could be missing.
func (f *fence) checkEnd(ctx context.Context) error {
	if f.nc.Stats().Reconnects == f.reconnects && (time.Since(f.answered) < quietFor || f.holdsNewest(ctx)) {
		return nil
	}
	return f.settle(ctx)
}

// holdsNewest asks for the last message that was acknowledged. It is false where that is not known.
func (f *fence) holdsNewest(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	msg, err := f.stream.GetMsg(ctx, f.newest.sequence)
	if err != nil || msg.Subject != f.newest.subject {
		return false
	}
	f.answered = time.Now()
	return true
}

// acknowledge notes that a message is in EVENTS.
func (f *fence) acknowledge(sequence uint64, subject string) {
	f.newest, f.answered = acknowledged{sequence, subject}, time.Now()
}

// dropStored removes from g what the stream holds already.
func (f *fence) dropStored(g *group) {
	n := 0
	for n < len(g.items) && g.items[n].At.Compare(f.last) <= 0 {
		f.through = max(f.through, g.items[n].Through)
		n++
	}
	g.drop(n, 0)
}

func (f *fence) tryGroup(ctx context.Context, g *group) error {
	started := time.Now()
	defer func() { f.metrics.seconds.Observe(time.Since(started).Seconds()) }()
	if len(g.items) == 0 {
		return f.storePosition(ctx, g)
	}
	switch {
	case len(g.marks) > 0:
		return f.storeAtomic(ctx, g)
	case f.pipeline && len(g.items) > 1:
		err := f.storePipelined(ctx, g)
		if errors.Is(err, errAgain) {
			f.pipeline = false // the stream has more replicas than it had, or other settings
		}
		return err
	case len(g.items) < fewerSingly:
		return f.storeSingly(ctx, g)
	default:
		return f.storeAtomic(ctx, g)
	}
}

// storeSingly stores items one by one.
func (f *fence) storeSingly(ctx context.Context, g *group) error {
	for len(g.items) > 0 {
		if err := f.checkEnd(ctx); err != nil {
			return err
		}
		item := &g.items[0]
		f.resetHeader()
		f.expect(f.sequence)
		f.header[headerContentType] = contentType
		if _, err := f.request(ctx, item.Subject, item.Data); err != nil {
			return err
		}
		f.stored(item)
		g.items = g.items[1:]
	}
	return nil
}

// storePosition writes a position alone.
func (f *fence) storePosition(ctx context.Context, g *group) error {
	mark := g.mark()
	if mark == nil {
		return nil
	}
	next := f.behind(nil, mark)
	sequence, err := f.publishPosition(ctx, next, f.sequence)
	if err != nil {
		return err
	}
	f.moved(next, sequence)
	g.marks = nil
	return nil
}

var contentType = []string{events.ContentType}

// sequenceTexts holds the decimal texts of a batch's sequence numbers.
var sequenceTexts = func() (texts [maxAtomic + 1][]string) {
	for i := range texts {
		texts[i] = []string{strconv.Itoa(i)}
	}
	return texts
}()

// storeAtomic stores all items, and the mark behind them, as one atomic batch.
func (f *fence) storeAtomic(ctx context.Context, g *group) error {
	total := len(g.items)
	var next Position
	var positionData []byte
	mark := g.mark()
	if mark != nil {
		next = f.behind(&g.items[len(g.items)-1], mark)
		var err error
		if positionData, err = f.encodePosition(next); err != nil {
			return err
		}
		total++
	}
	f.batches++
	f.resetHeader()
	f.header[headerBatchID] = []string{f.leader[len(f.leader)-nuidLen:] + "." + strconv.FormatUint(f.batches, 36)}
	f.header[headerContentType] = contentType
	first := f.replySubject() // two consecutive subjects: the refusal of a batch may come at its first message
	commit := f.replySubject()
	for n := 1; n <= total; n++ {
		f.header[headerBatchSequence] = sequenceTexts[n]
		reply := ""
		if n == 1 {
			f.expect(f.sequence)
			reply = first
		} else if n == 2 {
			delete(f.header, headerExpected)
			delete(f.header, headerExpectedSubject)
		}
		if n == total {
			f.header[headerBatchCommit] = []string{"1"}
			reply = commit
		}
		subject, data := events.PositionSubject(f.source), positionData
		if n <= len(g.items) {
			subject, data = g.items[n-1].Subject, g.items[n-1].Data
		} else {
			delete(f.header, headerContentType)
		}
		if err := f.send(subject, reply, data); err != nil {
			return err
		}
	}
	answer, err := f.await(ctx, commit)
	if err != nil {
		return err
	}
	sequence, err := readAck(answer)
	if err != nil {
		return err
	}
	for i := range g.items {
		f.stored(&g.items[i])
	}
	last := g.items[len(g.items)-1].Subject
	if mark != nil {
		f.moved(next, sequence)
		last = events.PositionSubject(f.source)
	}
	f.acknowledge(sequence, last)
	g.items, g.marks = nil, nil
	return nil
}

// behind is the position that a mark asks for, under this leader's epoch, once last and all before it are stored.
func (f *fence) behind(last *Item, mark *Position) Position {
	next := *mark
	next.Epoch = f.position.Epoch
	if last != nil {
		next.CommitLSN, next.Index, next.XID = events.LSN(last.At.Commit), last.At.Index, last.XID
	}
	if next.Incarnation != f.position.Incarnation {
		return next // LSNs of another database say nothing here
	}
	if last == nil && next.CommitLSN < f.position.CommitLSN {
		next.CommitLSN, next.Index, next.XID = f.position.CommitLSN, f.position.Index, f.position.XID
	}
	next.EndLSN = max(next.EndLSN, f.position.EndLSN)
	return next
}

// stored notes that an event is in EVENTS.
func (f *fence) stored(item *Item) {
	f.last = item.At
	f.through = max(f.through, item.Through)
	f.position.CommitLSN, f.position.Index, f.position.XID = events.LSN(item.At.Commit), item.At.Index, item.XID
	f.metrics.published.Inc()
	f.metrics.publishedBytes.Add(float64(len(item.Data)))
}

// moved notes that a position is in EVENTS: the next publish expects it.
func (f *fence) moved(p Position, sequence uint64) {
	p.Leader = f.leader
	if p.Incarnation != f.position.Incarnation {
		f.last, f.through = events.Sequence{Commit: uint64(p.CommitLSN), Index: p.Index}, 0
	}
	f.position, f.sequence = p, sequence
	f.through = max(f.through, p.EndLSN)
}
