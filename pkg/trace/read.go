package trace

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natsread"
	"github.com/tributary-dev/tributary/pkg/events"
)

// Query says which event is asked for.
type Query struct {
	Event     string // the id that keys its effects
	Partition int
	Sequence  uint64    // in EVENTS
	Stored    time.Time // when EVENTS took it
	Most      int       // messages that are looked at; 200,000 where it is 0
}

// Found is what is on record of an event.
type Found struct {
	Records []Record  `json:"records"`           // oldest first
	Since   time.Time `json:"since"`             // records from before have gone; zero where there are none
	Partial bool      `json:"partial,omitempty"` // there was more to look at than Query.Most
}

const mostMessages = 200_000

// clocks is by how much the servers' and the readers' clocks may differ.
const clocks = 5 * time.Second

// errEnough ends the reading at its bound.
var errEnough = errors.New("enough was looked at")

// Read finds the records of an event. It looks at the headers of what was written since the event was stored, and
// decodes what speaks of it. It errs with jetstream.ErrStreamNotFound where nothing was ever recorded.
func Read(ctx context.Context, js jetstream.JetStream, q Query) (Found, error) {
	found := Found{Records: []Record{}}
	stream, err := js.Stream(ctx, events.StreamTraces)
	if err != nil {
		return found, fmt.Errorf("open %s: %w", events.StreamTraces, err)
	}
	if state := stream.CachedInfo().State; state.Msgs > 0 {
		found.Since = state.FirstTime.UTC()
	}
	q.Most = cmp.Or(q.Most, mostMessages)
	var sequences []uint64
	for _, kind := range []Kind{Worker, JobRunner} {
		list, partial, err := q.locate(ctx, js, kind)
		if err != nil {
			return found, err
		}
		sequences = append(sequences, list...)
		found.Partial = found.Partial || partial
	}
	unpacker, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(mostUnpacked))
	if err != nil {
		return found, fmt.Errorf("decompress records: %w", err)
	}
	defer unpacker.Close()
	for _, sequence := range sequences {
		msg, err := stream.GetMsg(ctx, sequence)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // it has aged out meanwhile
		}
		if err != nil {
			return found, fmt.Errorf("read message %d of %s: %w", sequence, events.StreamTraces, err)
		}
		records, err := unpack(unpacker, msg, q.Event)
		if err != nil {
			return found, err
		}
		found.Records = append(found.Records, records...)
	}
	slices.SortStableFunc(found.Records, func(a, b Record) int { return a.At.Compare(b.At) })
	return found, nil
}

// mostUnpacked is more than any batch has.
const mostUnpacked = 4 << 20

// locate gives the messages that may speak of the event.
func (q Query) locate(ctx context.Context, js jetstream.JetStream, kind Kind) (sequences []uint64, partial bool, err error) {
	looked := 0
	query := natsread.Query{
		Stream: events.StreamTraces, Subjects: []string{Subject(q.Partition, kind)}, Since: q.Stored.Add(-clocks), HeadersOnly: true,
	}
	hash := hashOf(q.Event)
	err = natsread.Forward(ctx, js, query, func(msg *jetstream.RawStreamMsg) error {
		if looked++; looked > q.Most {
			return errEnough
		}
		if msg.Header.Get(headerVersion) == version && (speaksOf(msg.Header.Get(headerSequences), q.Sequence) ||
			mentions(msg.Header.Get(headerHashes), hash)) {
			sequences = append(sequences, msg.Sequence)
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return sequences, true, nil
	}
	return sequences, false, err
}

func speaksOf(header string, sequence uint64) bool {
	from, to, ok := strings.Cut(header, "-")
	first, errFirst := strconv.ParseUint(from, 10, 64)
	last, errLast := strconv.ParseUint(to, 10, 64)
	return ok && errFirst == nil && errLast == nil && first <= sequence && sequence <= last
}

func mentions(header string, hash uint32) bool {
	raw, err := hex.DecodeString(header)
	if err != nil {
		return false
	}
	for ; len(raw) >= 4; raw = raw[4:] {
		if binary.BigEndian.Uint32(raw) == hash {
			return true
		}
	}
	return false
}

// unpack gives the records of an event in a message. What can't be read is left out: a trace decides nothing.
func unpack(unpacker *zstd.Decoder, msg *jetstream.RawStreamMsg, event string) ([]Record, error) {
	lines, err := unpacker.DecodeAll(msg.Data, nil)
	if err != nil {
		return nil, fmt.Errorf("decompress message %d of %s: %w", msg.Sequence, events.StreamTraces, err)
	}
	begins := events.AppendString([]byte(`{"e":`), event)
	var records []Record
	for text := range bytes.Lines(lines) {
		if !bytes.HasPrefix(text, begins) {
			continue
		}
		r, err := parseLine(text)
		if err != nil {
			return nil, fmt.Errorf("decode message %d of %s: %w", msg.Sequence, events.StreamTraces, err)
		}
		r.By = msg.Header.Get(headerBy)
		records = append(records, r)
	}
	return records, nil
}
