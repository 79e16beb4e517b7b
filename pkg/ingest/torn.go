package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
)

// A power cut may leave the beginning of INBOX's last batch in EVENTS, and not the mark at its end, which alone says what of
// INBOX is stored: applications name their events' sources, so no subject tells the last of them all. So what lies behind
// the last mark is looked for, compared with what INBOX holds, and not stored again.

// readTorn finds the events of applications between the last mark of INBOX and our position.
func (f *fence) readTorn(ctx context.Context) error {
	f.torn = nil
	if f.position.Behind == 0 {
		return nil // nothing was ever stored
	}
	wrap := func(err error) error {
		return fmt.Errorf("read EVENTS behind the last position of %s: %w", f.source, err)
	}
	first, err := f.stream.GetMsg(ctx, f.position.Behind+1, jetstream.WithGetMsgSubject(events.EveryMessage))
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return nil
	case err != nil:
		return wrap(err)
	case first.Sequence > f.sequence:
		return nil
	}
	consumer, err := f.stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{events.EveryMessage}, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: first.Sequence,
	})
	if err != nil {
		return wrap(err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		return wrap(err)
	}
	defer messages.Stop()
	left := consumer.CachedInfo().NumPending
	for ; left > 0; left-- {
		msg, err := messages.Next(jetstream.NextMaxWait(answerTimeout))
		if err != nil {
			return wrap(err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		if meta.Sequence.Stream > f.sequence {
			return nil
		}
		if address, err := events.ParseAddress(msg.Subject()); err != nil || !address.FromApplication() {
			continue // a logical message of a database
		}
		event, err := events.Parse(msg.Data())
		if err != nil {
			return fmt.Errorf("%w: message %d of EVENTS: %w", errCorrupt, meta.Sequence.Stream, err)
		}
		f.torn = append(f.torn, Torn{At: event.Sequence, Data: msg.Data()})
	}
	return nil
}

// passTorn moves the position behind torn events that INBOX still has, and gives the sequence to read on from. Where INBOX
// has something else in their place, since it lost its end as well, that is placed behind all of them.
func (r *inboxReader) passTorn(ctx context.Context, start uint64, torn []Torn) (uint64, error) {
	last := torn[len(torn)-1].At.Commit
	passed := 0
	for _, event := range torn {
		place := event.At.Commit
		if place < r.base+start {
			break
		}
		msg, err := r.stream.GetMsg(ctx, place-r.base)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return 0, err
		}
		again, _, err := r.wrap(nil, msg.Subject, msg.Header, msg.Data, msg.Time, r.position.SystemID, place)
		if err != nil || !bytes.Equal(again, event.Data) {
			break
		}
		read := &inboxRead{sequence: msg.Sequence, at: msg.Time.UnixNano()}
		r.last.Store(read)
		start = read.sequence + 1
		r.position.CommitLSN, r.position.Index, r.position.EndLSN = events.LSN(place), 1, events.LSN(place+1)
		if r.position.Cursor, err = json.Marshal(inboxCursor{Base: r.base, At: read.at}); err != nil {
			return 0, fmt.Errorf("encode the cursor: %w", err)
		}
		passed++
	}
	r.opts.Log.Warn("a batch of INBOX was stored in part: going on behind that part", "events", len(torn), "known", passed)
	if passed == len(torn) {
		return start, nil
	}
	var err error
	r.base = max(last, r.base)
	r.position.Incarnation++
	r.position.CommitLSN, r.position.Index, r.position.EndLSN = events.LSN(r.base), 1, events.LSN(r.base+1)
	r.position.Cursor, err = json.Marshal(inboxCursor{Base: r.base})
	return start, err
}
