package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
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
	inboxPurgeEvery = 5 * time.Second
)

// Run reads INBOX behind the position until ctx ends, and purges what was stored long enough ago. In positions of
// INBOX, LSNs are its sequences.
func (in *Inbox) Run(ctx context.Context, state State, feed *Feed) error {
	stream, err := in.js.Stream(ctx, events.StreamInbox)
	if err != nil {
		return fmt.Errorf("open INBOX: %w", err)
	}
	position, base, err := in.locate(state.Position, stream.CachedInfo())
	if err != nil {
		return err
	}
	consumer, err := in.js.OrderedConsumer(ctx, events.StreamInbox, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(uint64(position.EndLSN)-base, 1),
	})
	if err != nil {
		return fmt.Errorf("read INBOX: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return in.purge(ctx, stream, base, feed) })
	group.Go(func() error { return in.read(ctx, consumer, position, base, feed) })
	return group.Wait()
}

// inboxCursor is the cursor in positions of INBOX.
type inboxCursor struct {
	Base uint64 `json:"base"` // what is added to the stream's own sequences
}

// locate says where to read on. A stream that was made anew counts from 1 again, under the next incarnation; what it
// brings is placed behind all that was stored before, since places ascend for ever.
func (in *Inbox) locate(p Position, info *jetstream.StreamInfo) (Position, uint64, error) {
	var cursor inboxCursor
	if len(p.Cursor) > 0 {
		if err := json.Unmarshal(p.Cursor, &cursor); err != nil {
			return Position{}, 0, fmt.Errorf("%w: cursor of INBOX: %w", errCorrupt, err)
		}
	}
	created := strconv.FormatInt(info.Created.UnixNano(), 36)
	if p.SystemID == created {
		return p, cursor.Base, nil
	}
	cursor.Base = uint64(p.CommitLSN)
	text, err := json.Marshal(cursor)
	if err != nil {
		return Position{}, 0, fmt.Errorf("encode the cursor of INBOX: %w", err)
	}
	return Position{
		Incarnation: p.Incarnation + 1, SystemID: created, Phase: PhaseStreaming, Cursor: text,
		CommitLSN: p.CommitLSN, Index: p.Index, EndLSN: p.CommitLSN + 1,
	}, cursor.Base, nil
}

func (in *Inbox) read(ctx context.Context, consumer jetstream.Consumer, position Position, base uint64, feed *Feed) error {
	messages, err := consumer.Messages(jetstream.PullMaxMessages(inboxBatch))
	if err != nil {
		return fmt.Errorf("read INBOX: %w", err)
	}
	stop := context.AfterFunc(ctx, messages.Stop)
	defer stop()
	defer messages.Stop()
	for {
		batch, err := in.nextBatch(ctx, messages, &position, base, feed)
		if err != nil {
			return err
		}
		if err := feed.Put(ctx, batch); err != nil {
			return err
		}
	}
}

// nextBatch wraps the messages that are there, at least one, and ends with the position behind them, so that both are
// stored together or not at all.
func (in *Inbox) nextBatch(
	ctx context.Context, messages jetstream.MessagesContext, position *Position, base uint64, feed *Feed,
) (*Batch, error) {
	batch := feed.Batch()
	for n := 0; n < inboxBatch && len(batch.Buf) < MaxBatchBytes/2; n++ {
		wait := nextMessage
		if n == 0 {
			wait = firstMessage
		}
		msg, err := wait(messages, feed)
		if errors.Is(err, errNoneWaits) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read INBOX: %w", err)
		}
		sequence, err := in.add(ctx, batch, msg, position.SystemID, base)
		if err != nil {
			return nil, err
		}
		position.CommitLSN, position.Index, position.EndLSN = events.LSN(sequence), 1, events.LSN(sequence+1)
	}
	mark := *position
	batch.Items = append(batch.Items, Item{Mark: &mark, Through: mark.EndLSN})
	return batch, nil
}

var errNoneWaits = errors.New("no message waits")

// firstMessage waits for a message, however long it takes. It ends when messages is stopped.
func firstMessage(messages jetstream.MessagesContext, feed *Feed) (jetstream.Msg, error) {
	for {
		feed.InTouch()
		msg, err := messages.Next(jetstream.NextMaxWait(heardWithin / 4))
		if !errors.Is(err, nats.ErrTimeout) {
			return msg, err
		}
	}
}

func nextMessage(messages jetstream.MessagesContext, _ *Feed) (jetstream.Msg, error) {
	msg, err := messages.Next(jetstream.NextMaxWait(time.Millisecond))
	if errors.Is(err, nats.ErrTimeout) {
		return nil, errNoneWaits
	}
	return msg, err
}

// add appends one message's event to batch, or quarantines it, and gives the message's place.
func (in *Inbox) add(ctx context.Context, batch *Batch, msg jetstream.Msg, stream string, base uint64) (uint64, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return 0, fmt.Errorf("read INBOX: %w", err)
	}
	own := fmt.Sprintf("inbox-%s-%d", stream, meta.Sequence.Stream)
	sequence := base + meta.Sequence.Stream
	id := msg.Headers().Get(jetstream.MsgIDHeader)
	if id == "" {
		id = own
	}
	start := len(batch.Buf)
	publication, err := events.ParsePublication(msg.Subject())
	if err == nil && slices.Contains(in.opts.Reserved, publication.Source) {
		err = fmt.Errorf("subject %q: %s is the name of a database's source", msg.Subject(), publication.Source)
	}
	if err == nil {
		batch.Buf, err = events.AppendPublished(batch.Buf, events.Published{
			Publication: publication, Header: msg.Headers(), Body: msg.Data(), ID: id, Sequence: sequence, Time: meta.Timestamp,
		})
	}
	if size := len(batch.Buf) - start; err == nil && size > in.opts.MaxEvent {
		err = fmt.Errorf("its envelope has %d bytes, more than %d", size, in.opts.MaxEvent)
	}
	if err != nil {
		batch.Buf = batch.Buf[:start]
		return sequence, in.quarantine(ctx, msg, own, err)
	}
	key := publication.EntityKey()
	address := events.Address{
		Partition: events.Partition(key, in.opts.Partitions), Source: publication.Source,
		Schema: publication.Entity, Table: publication.Type, Op: events.OpMessage,
	}
	batch.Items = append(batch.Items, Item{
		Subject: address.Subject(), Data: batch.Buf[start:len(batch.Buf):len(batch.Buf)],
		At: events.Sequence{Commit: sequence, Index: 1}, Through: events.LSN(sequence + 1),
	})
	return sequence, nil
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

// purge frees INBOX of what was stored long enough ago.
func (in *Inbox) purge(ctx context.Context, stream jetstream.Stream, base uint64, feed *Feed) error {
	var purged events.LSN
	for sleep(ctx, inboxPurgeEvery) {
		through := feed.Confirmable()
		if through <= purged || uint64(through) <= base+1 {
			continue
		}
		if err := stream.Purge(ctx, jetstream.WithPurgeSequence(uint64(through)-base)); err != nil {
			in.opts.Log.Warn("purge INBOX", "err", err)
			continue
		}
		purged = through
	}
	return nil
}
