package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/tributary-dev/tributary/pkg/events"
)

// errDeposed ends a session: another leader wrote a later position, and the server takes nothing more from this one.
var errDeposed = errors.New("another ingest leads this source now")

// errTailLost ends a session: EVENTS lost what it had acknowledged, so reading has to begin again where it ends now.
var errTailLost = errors.New("EVENTS lost messages that it had acknowledged: reading again from where it ends")

const (
	headerExpected        = "Nats-Expected-Last-Subject-Sequence"
	headerExpectedSubject = "Nats-Expected-Last-Subject-Sequence-Subject"
	headerContentType     = "Content-Type"
	headerBatchID         = "Nats-Batch-Id"
	headerBatchSequence   = "Nats-Batch-Sequence"
	headerBatchCommit     = "Nats-Batch-Commit"

	answerTimeout = 2 * time.Second // of one publish; settling a doubt costs little, so a dead server is left early
	askTimeout    = 500 * time.Millisecond
	fullPause     = 500 * time.Millisecond

	// After so long without an answer a server may have died and come back unnoticed, where it is not the one that we are
	// connected to.
	quietFor = time.Second
)

// fence writes to EVENTS for one leader of one source. Everything that it publishes expects the source's last position
// to be the one that this leader wrote: from the moment at which another leader writes the next, the server refuses
// what this one has sent or will send. It is not safe for concurrent use.
type fence struct {
	nc       *nats.Conn
	stream   jetstream.Stream
	source   string
	leader   string // unique to the session
	epoch    uint64 // that this leader's is later than, also where EVENTS does not know it
	ofEvents bool   // the source's events can be told by their subject
	pipeline bool   // many events go as a fast batch
	log      *slog.Logger
	metrics  *sourceMetrics

	replies chan *nats.Msg
	inbox   string
	sub     *nats.Subscription
	tokens  uint64
	batches uint64

	// What says that the stream may hold less than was acknowledged.
	reconnects uint64       // of the connection, when the stream's end was last read
	newest     acknowledged // the last message that was
	answered   time.Time    // when that was last known to be there

	inFlight atomic.Int64 // events that are being stored

	sequence uint64   // of the last position, in EVENTS
	position Position // as it was last written, with what was stored since
	last     events.Sequence
	through  events.LSN
	torn     []Torn

	incarnations Incarnations // nil where nobody counts
	incarnation  uint64       // the highest that is kept there, as far as this leader knows

	header nats.Header // reused: publishing copies it
}

// acknowledged is a message of ours in EVENTS.
type acknowledged struct {
	sequence uint64
	subject  string
}

func newFence(nc *nats.Conn, stream jetstream.Stream, source, leader string, log *slog.Logger, metrics *sourceMetrics) (*fence, error) {
	f := &fence{
		nc: nc, stream: stream, source: source, leader: leader + "-" + nuid.Next(), ofEvents: source != events.InboxSource,
		log: log, metrics: metrics, inbox: nats.NewInbox(), replies: make(chan *nats.Msg, 2*maxAtomic), header: nats.Header{},
		pipeline: mayPipeline(stream),
	}
	var err error
	if f.sub, err = nc.ChanSubscribe(f.inbox+".>", f.replies); err != nil {
		return nil, fmt.Errorf("subscribe to the answers of EVENTS: %w", err)
	}
	return f, nil
}

func (f *fence) close() { _ = f.sub.Unsubscribe() }

// takeOver writes the next position, and tells how far the source is stored. When it returns, no earlier leader's
// message can come any more. It waits while EVENTS is away or full.
func (f *fence) takeOver(ctx context.Context) (State, error) {
	err := f.claim(ctx, func(Position) bool { return true })
	if err != nil {
		return State{}, err
	}
	f.log.Info("leading", "source", f.source, "epoch", f.position.Epoch, "stored", f.last.String(), "phase", string(f.position.Phase))
	return State{Position: f.position, Last: f.last, Through: f.through, Torn: f.torn}, nil
}

// settle takes over from itself after a doubt: whether or not what was sent came, nothing of it can come any more.
func (f *fence) settle(ctx context.Context) error {
	f.metrics.doubts.Inc()
	epoch, last := f.position.Epoch, f.last
	err := f.claim(ctx, func(p Position) bool { return p.Leader == f.leader || p.Epoch <= epoch })
	if err != nil {
		return err
	}
	if f.last.Compare(last) < 0 || len(f.torn) > 0 {
		return fmt.Errorf("%w (acknowledged %s, holds %s)", errTailLost, last, f.last)
	}
	return nil
}

// claim writes a position with the next epoch behind the last one that there is, as long as mayFollow allows it.
func (f *fence) claim(ctx context.Context, mayFollow func(Position) bool) error {
	began, told := time.Now(), false
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := f.tryClaim(ctx, mayFollow)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errDeposed), errors.Is(err, errCorrupt):
			return err
		case errors.Is(err, errStale):
			pause = 0 // somebody wrote between our read and our write: look again
		case errors.Is(err, errFull):
			f.metrics.full.Inc()
			pause = fullPause
		}
		if !told && time.Since(began) > 5*time.Second {
			told = true
			f.log.Warn("EVENTS does not take the lead's position; trying on", "source", f.source, "err", err)
		}
		if !sleep(ctx, pause) {
			return context.Cause(ctx)
		}
		pause = max(pause, 25*time.Millisecond)
	}
}

const positionVersion = 1

// errCorrupt marks a position or event of ours in EVENTS that can't be read.
var errCorrupt = errors.New("corrupt")

func (f *fence) tryClaim(ctx context.Context, mayFollow func(Position) bool) error {
	f.reconnects = f.nc.Stats().Reconnects
	before, sequence, err := f.lastPosition(ctx)
	if err != nil {
		return err
	}
	if !mayFollow(before) {
		return fmt.Errorf("%w: epoch %d of %s", errDeposed, before.Epoch, before.Leader)
	}
	next := before
	next.Epoch = max(next.Epoch, f.epoch) + 1
	if !f.ofEvents && next.Behind == 0 {
		next.Behind = sequence
	}
	if sequence, err = f.publishPosition(ctx, next, sequence); err != nil {
		return err
	}
	next.Leader = f.leader
	f.sequence, f.position = sequence, next
	return f.readEnd(ctx)
}

// readEnd finds how far the source is stored: the later of its last event and its position.
func (f *fence) readEnd(ctx context.Context) error {
	f.last = events.Sequence{Commit: uint64(f.position.CommitLSN), Index: f.position.Index}
	f.through = f.position.EndLSN
	if !f.ofEvents {
		return f.readTorn(ctx)
	}
	for _, subject := range events.ChangesOfSource(f.source) {
		if err := f.readLast(ctx, subject); err != nil {
			return err
		}
	}
	return nil
}

// readLast heeds the last event under subject.
func (f *fence) readLast(ctx context.Context, subject string) error {
	msg, err := f.getLast(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the last event of %s: %w", f.source, err)
	}
	event, err := events.Parse(msg.Data)
	if err != nil {
		return fmt.Errorf("%w: message %d of EVENTS: %w", errCorrupt, msg.Sequence, err)
	}
	ofThisDatabase := strings.HasPrefix(event.ID, f.source+"-"+strconv.FormatUint(f.position.Incarnation, 10)+"-")
	if !ofThisDatabase || event.Sequence.Compare(f.last) < 0 {
		return nil
	}
	row, err := event.Row()
	if err != nil {
		return fmt.Errorf("%w: message %d of EVENTS: %w", errCorrupt, msg.Sequence, err)
	}
	f.last = event.Sequence
	through := events.LSN(event.Sequence.Commit)
	if row.Tx != nil && row.Tx.Last { // a commit may begin where a message of no transaction ends
		through++
	}
	f.through = max(f.through, through)
	return nil
}

// lastPosition reads the source's last position from the stream's leader; a zero Position where there is none.
func (f *fence) lastPosition(ctx context.Context) (Position, uint64, error) {
	msg, err := f.getLast(ctx, events.PositionSubject(f.source))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return Position{V: positionVersion}, 0, nil
	}
	if err != nil {
		return Position{}, 0, fmt.Errorf("read the position of %s: %w", f.source, err)
	}
	var p Position
	if err := json.Unmarshal(msg.Data, &p); err != nil {
		return Position{}, 0, fmt.Errorf("%w: message %d of EVENTS, a position of %s: %w", errCorrupt, msg.Sequence, f.source, err)
	}
	if p.V != positionVersion {
		return Position{}, 0, fmt.Errorf("%w: message %d of EVENTS, a position of %s, has version %d, which another version of this program wrote",
			errCorrupt, msg.Sequence, f.source, p.V)
	}
	return p, msg.Sequence, nil
}

func (f *fence) getLast(ctx context.Context, subject string) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return f.stream.GetLastMsgForSubject(ctx, subject)
}

// publishPosition stores p where the last position is still the one at expected, and gives its sequence.
func (f *fence) publishPosition(ctx context.Context, p Position, expected uint64) (uint64, error) {
	data, err := f.encodePosition(p)
	if err != nil {
		return 0, err
	}
	f.resetHeader()
	f.expect(expected)
	return f.request(ctx, events.PositionSubject(f.source), data)
}

func (f *fence) encodePosition(p Position) ([]byte, error) {
	p.V, p.Leader, p.Time = positionVersion, f.leader, time.Now().UTC()
	data, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode the position of %s: %w", f.source, err)
	}
	return data, nil
}

func (f *fence) resetHeader() { clear(f.header) }

func (f *fence) expect(sequence uint64) {
	f.header[headerExpected] = []string{strconv.FormatUint(sequence, 10)}
	f.header[headerExpectedSubject] = []string{events.PositionSubject(f.source)}
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
