package dedupkv

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Ledger is the claims of one partition's effects under group commit: one record in KV holds all that is open, and
// whoever claims, settles or releases an effect while that record is being written joins the next write. It promises
// what Store's Claim, Holds, Settle and Release promise, for a fraction of their writes.
//
// Whoever holds the partition owns the ledger. Own reads what the last owner left, and writes the record anew by
// compare-and-swap on its revision; from then on the server refuses what an earlier owner sends, and that owner's calls
// err with ErrLost until it owns the ledger again. What the earlier owner had begun is open: TakenOver to whoever claims it.
//
// Nothing is forgotten by itself. The owner forgets by key, with Pass in the same write as the place that its line has
// reached, so that the record stays small; what is settled above an effect that is stuck moves into records of its own.
//
// The methods are safe for concurrent use, and wait until Run, which writes, has their answer or ctx ends.
type Ledger struct {
	store   *Store
	metrics *Metrics
	key     string

	mu     sync.Mutex
	next   *group // what the next write is for
	closed error  // why nothing is written any more

	wake chan struct{} // one place: next has something that waits

	// Of Run's goroutine.
	state    state
	want     Owner // as Own had it last
	owned    bool  // since Own, and not lost
	why      error // it is not owned
	unsaved  bool  // state has changed and was not written
	revision uint64
	epoch    uint64    // grows where what was known of the record is not true any more
	writes   uint64    // of all owners
	sealed   uint64    // segments of this owner
	wrote    time.Time // when the last write began
	last     int       // the ops that it was for
	purge    []*segment
}

// ID stands for an effect in a ledger: the beginning of the SHA-256 of its key.
type ID [12]byte

// IDOf gives the ID of an effect key.
func IDOf(effectKey string) ID {
	sum := sha256.Sum256([]byte(effectKey))
	return ID(sum[:len(ID{})])
}

// ErrOpen is the error of Reserve for an effect that somebody has begun before: it is to be claimed in its turn.
var ErrOpen = errors.New("effect was begun before")

// ErrUnowned is the error of a ledger that Own has not taken yet.
var ErrUnowned = errors.New("ledger is not owned")

// Ledger gives the ledger of a partition. There is no I/O before Run; metrics may be nil.
func (s *Store) Ledger(partition int, metrics *Metrics) *Ledger {
	if metrics == nil {
		metrics = NewMetrics(nil)
	}
	return &Ledger{
		store: s, metrics: metrics, key: ledgerKey(partition), next: newGroup(), wake: make(chan struct{}, 1),
		state: newState(partition), why: ErrUnowned,
	}
}

func ledgerKey(partition int) string { return "ledger." + events.PartitionName(partition) }

// Estate is what the owners of a ledger before have left.
type Estate struct {
	Reached map[Line]events.Sequence // how far each line had come
	Judged  Judged                   // by what their events were judged
}

// Own takes the ledger for owner, who holds the partition, and gives what was there by then. Asked again by
// the same process it keeps what that has begun, if nobody else has owned the ledger meanwhile.
//
// Still is asked after the record was read and before it is written; nothing is written where it errs, and Own errs with that.
// It is to make sure that the partition is the caller's: whoever has lost it before is told so by Still, and whoever loses it
// after, however long it stands still by then, is refused by the server once the next owner has the ledger. It may be nil.
func (l *Ledger) Own(ctx context.Context, owner Owner, still func(context.Context) error) (Estate, error) {
	op := &op{kind: opOwn, taking: &taking{ctx: ctx, owner: owner, still: still}}
	if err := l.do(ctx, op); err != nil {
		return Estate{}, fmt.Errorf("own %s: %w", l.key, err)
	}
	return op.taking.estate, nil
}

// Claim takes an effect, by its key, before it is begun. Asked again by the same owner it gives the same claim.
func (l *Ledger) Claim(ctx context.Context, key, generation string) (Claim, error) {
	return l.ClaimID(ctx, IDOf(key), Judgement{Generation: generation}, forever)
}

// ClaimID is Claim for who knows the effect's ID, and by what its event was judged. That is stored with the claim.
// It waits no longer than most.
func (l *Ledger) ClaimID(ctx context.Context, id ID, by Judgement, most time.Duration) (Claim, error) {
	op := &op{kind: opClaim, id: id, by: by}
	l.join(op, true)
	if err := op.within(ctx, most); err != nil {
		return Claim{}, fmt.Errorf("claim effect in %s: %w", l.key, err)
	}
	return op.claim, nil
}

// Note says by what an event was judged whose effects are claimed elsewhere. It does not wait.
func (l *Ledger) Note(by Judgement) { l.join(&op{kind: opNote, by: by}, true) }

// Pending is a claim that is on its way.
type Pending struct{ op *op }

// Wait gives the claim once it is stored. It waits no longer than most.
func (p Pending) Wait(ctx context.Context, most time.Duration) (Claim, error) {
	if err := p.op.within(ctx, most); err != nil {
		return Claim{}, fmt.Errorf("reserve effect: %w", err)
	}
	return p.op.claim, nil
}

// Answer is Wait without waiting: ok is false while the claim is not stored.
func (p Pending) Answer() (claim Claim, ok bool, err error) {
	select {
	case <-p.op.group.done:
		return p.op.claim, true, p.op.err
	default:
		return Claim{}, false, nil
	}
}

// Reserve claims an effect before its turn, and does not wait. It is for effects that nobody has begun; Wait gives
// ErrOpen for others: so a crash counts as a beginning of those that were at work, and for the rest once at most.
func (l *Ledger) Reserve(id ID, by Judgement) Pending {
	op := &op{kind: opReserve, id: id, by: by}
	l.join(op, true)
	return Pending{op}
}

// Withdraw gives back what was reserved and has not begun. It does not wait.
func (l *Ledger) Withdraw(ids ...ID) {
	if len(ids) > 0 {
		l.join(&op{kind: opWithdraw, ids: ids}, true)
	}
}

// Holds errs with ErrLost where somebody else owns the ledger now.
func (l *Ledger) Holds(ctx context.Context, key string, claim Claim) error {
	if err := l.do(ctx, &op{kind: opHold, id: IDOf(key), claim: claim}); err != nil {
		return fmt.Errorf("look after claim of %s: %w", key, err)
	}
	return nil
}

// Settle records the result of a claimed effect. It errs with ErrLost where somebody else has owned the ledger since.
// Settling again with the same result is success.
func (l *Ledger) Settle(ctx context.Context, key string, claim Claim, result Result) error {
	if err := l.do(ctx, &op{kind: opSettle, id: IDOf(key), claim: claim, result: result}); err != nil {
		return fmt.Errorf("settle claim of %s: %w", key, err)
	}
	return nil
}

// SettleID is Settle that does not wait: then is called from Run's goroutine, and must not block.
func (l *Ledger) SettleID(id ID, claim Claim, result Result, then func(error)) {
	l.join(&op{kind: opSettle, id: id, claim: claim, result: result, then: then}, true)
}

// Release takes the beginning of an effect back, because its owner stops before the effect's end.
func (l *Ledger) Release(ctx context.Context, key string, claim Claim) error {
	if err := l.do(ctx, &op{kind: opRelease, id: IDOf(key), claim: claim}); err != nil {
		return fmt.Errorf("release claim of %s: %w", key, err)
	}
	return nil
}

// Pass says that a line has reached a place, all before which is settled, and forgets effects, both with the next
// write. It does not wait, and does not cause that write.
func (l *Ledger) Pass(line Line, at events.Sequence, ids []ID) {
	l.join(&op{kind: opPass, line: line, at: at, ids: ids}, false)
}

// Forget forgets effects with the next write. It does not wait, and does not cause that write.
func (l *Ledger) Forget(ids ...ID) {
	l.join(&op{kind: opForget, ids: ids}, false)
}

// Saved says that the watermark of a line is stored at a place: up to there the ledger need not know of it.
func (l *Ledger) Saved(line Line, at events.Sequence) {
	l.join(&op{kind: opSaved, line: line, at: at}, false)
}

// Flush waits until all that was asked before is written.
func (l *Ledger) Flush(ctx context.Context) error {
	if err := l.do(ctx, &op{kind: opFlush}); err != nil {
		return fmt.Errorf("flush %s: %w", l.key, err)
	}
	return nil
}

// op is one change of a ledger, or a question.
type op struct {
	kind   opKind
	id     ID
	ids    []ID
	by     Judgement
	claim  Claim // of a claim and a reservation, what they found
	result Result
	line   Line
	at     events.Sequence
	then   func(error)

	group  *group
	taking *taking // of Own alone
	err    error   // to be read after group is done
}

// taking is what only a change of owners has.
type taking struct {
	ctx    context.Context
	still  func(context.Context) error
	owner  Owner
	estate Estate
}

type opKind int

const (
	opOwn opKind = iota + 1
	opClaim
	opReserve
	opWithdraw
	opHold
	opSettle
	opRelease
	opPass
	opForget
	opSaved
	opFlush
	opNote
)

// group is what one write is for.
type group struct {
	ops     []*op
	waiting bool          // somebody waits for it
	done    chan struct{} // closed when it is written, or not to be
}

func newGroup() *group { return &group{done: make(chan struct{})} }

func (l *Ledger) do(ctx context.Context, op *op) error {
	l.join(op, true)
	return op.wait(ctx)
}

func (o *op) wait(ctx context.Context) error {
	select {
	case <-o.group.done:
		return o.err
	default:
	}
	select {
	case <-o.group.done:
		return o.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

const forever = time.Duration(math.MaxInt64)

// waits are timers that nobody uses: a context with a deadline for each claim costs several times as much.
var waits = sync.Pool{New: func() any { return time.NewTimer(forever) }}

// within is wait that ends with context.DeadlineExceeded after most.
func (o *op) within(ctx context.Context, most time.Duration) error {
	select {
	case <-o.group.done:
		return o.err
	default:
	}
	timer := waits.Get().(*time.Timer)
	timer.Reset(most)
	defer func() {
		timer.Stop() // nothing is received from it after that
		waits.Put(timer)
	}()
	select {
	case <-o.group.done:
		return o.err
	case <-timer.C:
		return context.DeadlineExceeded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// join adds op to the next write, which is to come soon where somebody waits for it.
func (l *Ledger) join(op *op, waiting bool) {
	l.mu.Lock()
	if l.closed != nil {
		err := l.closed
		l.mu.Unlock()
		g := newGroup()
		g.ops, op.group = append(g.ops, op), g
		g.end(err)
		return
	}
	g := l.next
	op.group = g
	g.ops = append(g.ops, op)
	first := waiting && !g.waiting
	g.waiting = g.waiting || waiting
	l.mu.Unlock()
	if first {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// end gives every op of the group its answer.
func (g *group) end(err error) {
	for _, op := range g.ops {
		if err != nil {
			op.err = err
		}
	}
	close(g.done)
	for _, op := range g.ops {
		if op.then != nil {
			op.then(op.err)
		}
	}
}
