package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
)

// Inbox is the source of what applications publish: it validates, wraps and partitions the messages of INBOX.
type Inbox struct {
	js   jetstream.JetStream
	opts InboxOptions
}

// InboxOptions says where messages go.
type InboxOptions struct {
	Partitions int      // of EVENTS
	MaxEvent   int      // bytes of one envelope; larger ones are quarantined
	Reserved   []string // names of databases' sources, under which no application may publish
	Quarantine func(ctx context.Context, record deadletter.Record) error
	Log        *slog.Logger
	Metrics    *Metrics
}

// NewInbox makes the source.
func NewInbox(js jetstream.JetStream, opts InboxOptions) *Inbox {
	return &Inbox{js: js, opts: opts}
}

// Name is INBOX, which no source of a configuration can be called.
func (*Inbox) Name() string { return events.InboxSource }

const (
	inboxBatch      = 500
	inboxCheckEvery = 5 * time.Second
)

// errInboxChanged ends a session: INBOX is not the stream that was read, or has lost its tail, so its sequences count anew.
var errInboxChanged = errors.New("INBOX was made anew, or lost messages that were read: looking where to read on")

// Run reads INBOX behind the position until ctx ends, and purges what was stored long enough ago. In positions of
// INBOX, LSNs are its sequences.
func (in *Inbox) Run(ctx context.Context, state State, feed *Feed) error {
	stream, err := in.js.Stream(ctx, events.StreamInbox)
	if err != nil {
		return fmt.Errorf("open INBOX: %w", err)
	}
	r := &inboxReader{Inbox: in, stream: stream, feed: feed}
	start, err := r.locate(ctx, state.Position)
	if err == nil && len(state.Torn) > 0 {
		start, err = r.passTorn(ctx, start, state.Torn)
	}
	if err != nil {
		return fmt.Errorf("find where to read INBOX on: %w", err)
	}
	// One attempt to go on after a break: more would hold up the end of ctx, and Run is called again.
	consumer, err := in.js.OrderedConsumer(ctx, events.StreamInbox, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: start, MaxResetAttempts: 1,
	})
	if err != nil {
		return fmt.Errorf("read INBOX: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return r.purge(ctx) })
	group.Go(func() error { return r.read(ctx, consumer) })
	return group.Wait()
}

// inboxCursor is the cursor in positions of INBOX.
type inboxCursor struct {
	Base uint64 `json:"base"`         // what is added to the stream's own sequences
	At   int64  `json:"at,omitempty"` // when the stream took the last message that was read, in Unix nanoseconds
}

// inboxReader is one run.
type inboxReader struct {
	*Inbox
	stream jetstream.Stream
	feed   *Feed
	base   uint64 // what is added to the stream's own sequences

	position Position                  // of what was read
	consumer string                    // that brought the last message
	last     atomic.Pointer[inboxRead] // the last message; nil before the first
}

// inboxRead is a message that was read.
type inboxRead struct {
	sequence uint64
	at       int64 // in Unix nanoseconds; 0 where it is not known
}

// locate finds the first sequence to read. A stream that was made anew counts from 1 again, and one that a power cut took
// the tail of gives the same sequences to other messages. What they bring is placed behind all that was stored before,
// under the next incarnation: places ascend for ever, and are given once.
func (r *inboxReader) locate(ctx context.Context, p Position) (start uint64, err error) {
	var cursor inboxCursor
	if len(p.Cursor) > 0 {
		if err := json.Unmarshal(p.Cursor, &cursor); err != nil {
			return 0, fmt.Errorf("%w: cursor of INBOX: %w", errCorrupt, err)
		}
	}
	info := r.stream.CachedInfo()
	p.Behind = 0 // what that said is in State.Torn
	r.position, r.base = p, cursor.Base
	start = 1
	if created := streamIdentity(info); p.SystemID != created {
		r.position = Position{SystemID: created, Phase: PhaseStreaming}
		cursor.At = 0
	} else {
		read := &inboxRead{sequence: max(uint64(p.EndLSN), cursor.Base+1) - cursor.Base - 1, at: cursor.At}
		kept, err := r.holds(ctx, info, read)
		if err != nil {
			return 0, err
		}
		if kept {
			r.last.Store(read)
			return read.sequence + 1, nil
		}
		if start, err = r.firstAfter(ctx, info, read); err != nil {
			return 0, err
		}
		r.opts.Log.Warn("INBOX lost messages that were read; reading on with those that came since", "from", start)
	}
	r.base = uint64(p.CommitLSN)
	r.position.Incarnation = p.Incarnation + 1
	r.position.CommitLSN, r.position.Index, r.position.EndLSN = p.CommitLSN, p.Index, p.CommitLSN+1
	r.position.Cursor, err = json.Marshal(inboxCursor{Base: r.base, At: cursor.At})
	return start, err
}

// streamIdentity tells a stream from others of its name.
func streamIdentity(info *jetstream.StreamInfo) string {
	return strconv.FormatInt(info.Created.UnixNano(), 36)
}

// holds tells whether the stream has the message, or had it and gave it up in order.
func (r *inboxReader) holds(ctx context.Context, info *jetstream.StreamInfo, read *inboxRead) (bool, error) {
	if read.sequence == 0 {
		return true, nil
	}
	msg, err := r.stream.GetMsg(ctx, read.sequence)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return info.State.LastSeq >= read.sequence, nil
	case err != nil:
		return false, err
	default:
		return read.at == 0 || msg.Time.UnixNano() == read.at, nil
	}
}

// firstAfter finds the first message that came after read, which has gone.
func (r *inboxReader) firstAfter(ctx context.Context, info *jetstream.StreamInfo, read *inboxRead) (uint64, error) {
	if read.at == 0 {
		return info.State.LastSeq + 1, nil
	}
	low, high := info.State.FirstSeq, min(info.State.LastSeq, read.sequence)+1
	for low < high { // all below low came before, what is at high or above came after
		middle := low + (high-low)/2
		msg, err := r.stream.GetMsg(ctx, middle, jetstream.WithGetMsgSubject(">"))
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			high = middle
		case err != nil:
			return 0, err
		case msg.Time.UnixNano() <= read.at:
			low = max(msg.Sequence, middle) + 1
		default:
			high = middle
		}
	}
	return max(low, 1), nil
}

// check errs where the stream is another one, or has lost what was read.
func (r *inboxReader) check(ctx context.Context) error {
	read := r.last.Load()
	info, err := r.stream.Info(ctx)
	if err != nil {
		return fmt.Errorf("look at INBOX: %w", err)
	}
	if streamIdentity(info) != r.position.SystemID {
		return errInboxChanged
	}
	if read == nil {
		return nil
	}
	kept, err := r.holds(ctx, info, read)
	if err == nil && !kept {
		err = errInboxChanged
	}
	return err
}

func (r *inboxReader) read(ctx context.Context, consumer jetstream.Consumer) error {
	const buffered = 4 // of the largest messages; half of it has to hold one
	messages, err := consumer.Messages(jetstream.PullMaxBytes(buffered * int(r.js.Conn().MaxPayload())))
	if err != nil {
		return fmt.Errorf("read INBOX: %w", err)
	}
	stop := context.AfterFunc(ctx, messages.Stop)
	defer stop()
	defer messages.Stop()
	for {
		batch, err := r.nextBatch(ctx, messages)
		if err != nil {
			return fmt.Errorf("read INBOX: %w", err)
		}
		if err := r.feed.Put(ctx, batch); err != nil {
			return err
		}
	}
}

// nextBatch wraps the messages that are there, at least one, and ends with the position behind them, so that both are
// stored together or not at all.
func (r *inboxReader) nextBatch(ctx context.Context, messages jetstream.MessagesContext) (*Batch, error) {
	batch := r.feed.Batch()
	var last *inboxRead
	for n := 0; n < inboxBatch && len(batch.Buf) < MaxBatchBytes/2; n++ {
		wait := nextMessage
		if n == 0 {
			wait = firstMessage
		}
		msg, err := wait(ctx, messages, r.feed)
		if errors.Is(err, errNoneWaits) {
			break
		}
		if err != nil {
			return nil, err
		}
		if last, err = r.take(ctx, batch, msg); err != nil {
			return nil, err
		}
	}
	var err error
	if r.position.Cursor, err = json.Marshal(inboxCursor{Base: r.base, At: last.at}); err != nil {
		return nil, fmt.Errorf("encode the cursor: %w", err)
	}
	mark := r.position
	batch.Items = append(batch.Items, Item{Mark: &mark, Through: mark.EndLSN})
	return batch, nil
}

// take appends one message's event to batch, and moves the position behind it.
func (r *inboxReader) take(ctx context.Context, batch *Batch, msg jetstream.Msg) (*inboxRead, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return nil, err
	}
	if meta.Consumer != r.consumer { // reading was broken, and began anew behind the last sequence
		if err := r.check(ctx); err != nil {
			return nil, err
		}
		r.consumer = meta.Consumer
	}
	place := r.base + meta.Sequence.Stream
	if err := r.add(ctx, batch, msg, meta, r.position.SystemID, place); err != nil {
		return nil, err
	}
	r.position.CommitLSN, r.position.Index, r.position.EndLSN = events.LSN(place), 1, events.LSN(place+1)
	read := &inboxRead{sequence: meta.Sequence.Stream, at: meta.Timestamp.UnixNano()}
	r.last.Store(read)
	return read, nil
}

var errNoneWaits = errors.New("no message waits")

// firstMessage waits for a message, however long it takes.
func firstMessage(ctx context.Context, messages jetstream.MessagesContext, feed *Feed) (jetstream.Msg, error) {
	for {
		feed.InTouch()
		msg, err := messages.Next(jetstream.NextMaxWait(heardWithin / 4))
		if !errors.Is(err, nats.ErrTimeout) || ctx.Err() != nil {
			return msg, err
		}
	}
}

func nextMessage(_ context.Context, messages jetstream.MessagesContext, _ *Feed) (jetstream.Msg, error) {
	msg, err := messages.Next(jetstream.NextMaxWait(time.Millisecond))
	if errors.Is(err, nats.ErrTimeout) {
		return nil, errNoneWaits
	}
	return msg, err
}

// add appends one message's event to batch, or quarantines it.
func (in *Inbox) add(ctx context.Context, batch *Batch, msg jetstream.Msg, meta *jetstream.MsgMetadata, stream string, place uint64) error {
	start := len(batch.Buf)
	var address events.Address
	var err error
	batch.Buf, address, err = in.wrap(batch.Buf, msg.Subject(), msg.Headers(), msg.Data(), meta.Timestamp, stream, place)
	if err != nil {
		return in.quarantine(ctx, msg, ownID(stream, place), err)
	}
	batch.Items = append(batch.Items, Item{
		Subject: address.Subject(), Data: batch.Buf[start:len(batch.Buf):len(batch.Buf)],
		At: events.Sequence{Commit: place, Index: 1}, Through: events.LSN(place + 1),
	})
	return nil
}

// ownID is the id of a message that has none.
func ownID(stream string, place uint64) string { return fmt.Sprintf("inbox-%s-%d", stream, place) }

// wrap appends a message's event to dst, the same whenever it is read. It errs where the message can't be an event, and
// gives dst as it was.
func (in *Inbox) wrap(dst []byte, subject string, header nats.Header, body []byte, at time.Time, stream string, place uint64) ([]byte, events.Address, error) {
	id := header.Get(jetstream.MsgIDHeader)
	if id == "" {
		id = ownID(stream, place)
	}
	start := len(dst)
	publication, err := events.ParsePublication(subject)
	if err == nil && slices.Contains(in.opts.Reserved, publication.Source) {
		err = fmt.Errorf("subject %q: %s is the name of a database's source", subject, publication.Source)
	}
	if err == nil {
		dst, err = events.AppendPublished(dst, events.Published{
			Publication: publication, Header: header, Body: body, ID: id, Sequence: place, Time: at,
		})
	}
	if size := len(dst) - start; err == nil && size > in.opts.MaxEvent {
		err = fmt.Errorf("its envelope has %d bytes, more than %d", size, in.opts.MaxEvent)
	}
	if err != nil {
		return dst[:start], events.Address{}, err
	}
	return dst, events.Address{
		Partition: events.Partition(publication.EntityKey(), in.opts.Partitions), Source: publication.Source,
		Schema: publication.Entity, Table: publication.Type, Op: events.OpMessage,
	}, nil
}

// quarantine keeps what can't be an event, with the reason. It is written before the position moves on, under an id
// of its own, so that it is there once.
func (in *Inbox) quarantine(ctx context.Context, msg jetstream.Msg, id string, reason error) error {
	err := in.opts.Quarantine(ctx, deadletter.Record{
		ID: id, Reason: deadletter.Undecodable, Subject: msg.Subject(),
		Error: reason.Error(), Raw: msg.Data(), Header: msg.Headers(),
	})
	if err != nil {
		return fmt.Errorf("quarantine message %s: %w", id, err)
	}
	in.opts.Metrics.quarantined.WithLabelValues(events.InboxSource).Inc()
	in.opts.Log.Warn("a published message can't be an event; it lies in DEADLETTERS", "subject", msg.Subject(), "id", id, "err", reason)
	return nil
}

// purge frees INBOX of what was stored long enough ago. It errs where INBOX is not what was read: nothing may be purged
// by sequences of another.
func (r *inboxReader) purge(ctx context.Context) error {
	var purged events.LSN
	for sleep(ctx, inboxCheckEvery) {
		if err := r.check(ctx); err != nil {
			return err
		}
		through := r.feed.Confirmable()
		if through <= purged || uint64(through) <= r.base+1 {
			continue
		}
		if err := r.stream.Purge(ctx, jetstream.WithPurgeSequence(uint64(through)-r.base)); err != nil {
			r.opts.Log.Warn("purge INBOX", "err", err)
			continue
		}
		purged = through
	}
	return nil
}
