package deadletter

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
)

// A record of several messages has its bytes cut into parts of one size. The last one is its head: a record is there
// when its head is. The head names the sequences of the others, so that a second try with other bytes can't mix with
// the first.
const (
	headerPart  = "Tributary-Part"  // i/n, from 1, where n is above 1
	headerParts = "Tributary-Parts" // on the head: the sequences of the parts before it, joined by commas
)

// Writer writes dead letters. It is safe for concurrent use.
type Writer struct {
	js      jetstream.JetStream
	maxBody int // 0: half of what the server takes
}

// New gives a Writer.
func New(js jetstream.JetStream) *Writer { return &Writer{js: js} }

// Write stores the record, and returns when the server has acknowledged it. A record that is there already, by ID and
// Round, is success. While the server is away or full it waits, until ctx ends. It errors with ErrInvalid where no
// waiting helps.
func (w *Writer) Write(ctx context.Context, record Record) error {
	_, err := w.Store(ctx, record)
	return err
}

// Store is Write, and gives the sequence in DEADLETTERS by which the record is named.
func (w *Writer) Store(ctx context.Context, record Record) (sequence uint64, err error) {
	if err := record.fill(time.Now()); err != nil {
		return 0, err
	}
	body, err := json.Marshal(&record)
	if err != nil {
		return 0, fmt.Errorf("%w: encode dead letter %s: %w", ErrInvalid, record.ID, err)
	}
	if sequence, err = w.store(ctx, &record, body); err != nil {
		return 0, fmt.Errorf("write dead letter %s: %w", record.ID, err)
	}
	return sequence, nil
}

func (w *Writer) store(ctx context.Context, record *Record, body []byte) (uint64, error) {
	id := record.messageID()
	size := w.maxBody
	if size == 0 {
		size = max(int(w.js.Conn().MaxPayload()/2), 1)
	}
	if len(body) <= size {
		ack, err := w.publish(ctx, message(record.subject(), id, body))
		if err != nil {
			return 0, err
		}
		return ack.Sequence, nil
	}
	digest := sha256.Sum256(body)
	total := (len(body) + size - 1) / size
	sequences := make([]string, 0, total)
	var fresh []uint64
	for i := 1; i < total; i++ {
		part := message(record.subject(), fmt.Sprintf("%s/%s/%d", id, hex.EncodeToString(digest[:8]), i), body[(i-1)*size:i*size])
		part.Header.Set(headerPart, fmt.Sprintf("%d/%d", i, total))
		ack, err := w.publish(ctx, part)
		if err != nil {
			return 0, err
		}
		if !ack.Duplicate {
			fresh = append(fresh, ack.Sequence)
		}
		sequences = append(sequences, strconv.FormatUint(ack.Sequence, 10))
	}
	head := message(record.subject(), id, body[(total-1)*size:])
	head.Header.Set(headerPart, fmt.Sprintf("%d/%d", total, total))
	head.Header.Set(headerParts, strings.Join(sequences, ","))
	ack, err := w.publish(ctx, head)
	if err != nil {
		return 0, err
	}
	if !ack.Duplicate {
		return ack.Sequence, nil
	}
	return ack.Sequence, w.remove(ctx, fresh) // the record was there, with other parts
}

func message(subject, id string, body []byte) *nats.Msg {
	return &nats.Msg{Subject: subject, Data: body, Header: nats.Header{jetstream.MsgIDHeader: {id}}}
}

func (w *Writer) remove(ctx context.Context, sequences []uint64) error {
	if len(sequences) == 0 {
		return nil
	}
	stream, err := w.js.Stream(ctx, events.StreamDeadLetters)
	if err != nil {
		return fmt.Errorf("open %s: %w", events.StreamDeadLetters, err)
	}
	for _, sequence := range sequences {
		if err := stream.DeleteMsg(ctx, sequence); err != nil && !errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
			return fmt.Errorf("delete part %d: %w", sequence, err)
		}
	}
	return nil
}

// How long one try waits for its answer, and the pause after it: a dead leader does not answer.
const (
	tryTimeout = time.Second
	firstPause = 20 * time.Millisecond
	mostPause  = time.Second
)

func (w *Writer) publish(ctx context.Context, msg *nats.Msg) (*jetstream.PubAck, error) {
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		ack, err := w.publishOnce(ctx, msg)
		if err == nil {
			return ack, nil
		}
		if final(err) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), err)
		case <-time.After(pause):
		}
	}
}

func (w *Writer) publishOnce(ctx context.Context, msg *nats.Msg) (*jetstream.PubAck, error) {
	// The connection would keep every copy that is sent meanwhile, and send all of them when it is back.
	if conn := w.js.Conn(); !conn.IsConnected() && !conn.IsClosed() {
		return nil, nats.ErrDisconnected
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	return w.js.PublishMsg(ctx, msg, jetstream.WithExpectStream(events.StreamDeadLetters), jetstream.WithRetryAttempts(0))
}

// final tells whether no waiting mends err. The rest is the server's or the network's trouble: no answer, no leader, full.
func final(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) && api.Code == 400 {
		return true
	}
	return errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrMaxPayload)
}
