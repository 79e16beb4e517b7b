package deadletter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Entry is a record as it is stored.
type Entry struct {
	Sequence uint64 // in DEADLETTERS: what Get takes
	Stored   time.Time
	Subject  string   // in DEADLETTERS
	Parts    []uint64 // the messages that belong to it beside its own; most have none
	Record   Record
	Err      error // where the record can't be read: a part is gone, or its bytes are not a record
}

// ErrNotFound says that no record has the sequence.
var ErrNotFound = errors.New("dead letter not found")

// Get reads the record at a sequence of DEADLETTERS. It errors with ErrNotFound where none begins there.
func Get(ctx context.Context, js jetstream.JetStream, sequence uint64) (Entry, error) {
	stream, err := open(ctx, js)
	if err != nil {
		return Entry{}, err
	}
	if sequence == 0 {
		return Entry{}, fmt.Errorf("%w: sequence 0; they begin at 1", ErrNotFound)
	}
	msg, err := stream.GetMsg(ctx, sequence)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return Entry{}, fmt.Errorf("%w: sequence %d", ErrNotFound, sequence)
	case err != nil:
		return Entry{}, fmt.Errorf("read dead letter %d: %w", sequence, err)
	case !isHead(msg):
		return Entry{}, fmt.Errorf("%w: sequence %d is a part of another", ErrNotFound, sequence)
	}
	return readEntry(ctx, stream, msg)
}

// List reads up to limit records in the order in which they were stored, from a sequence of DEADLETTERS on. The next
// page begins behind the last entry's sequence; a page with fewer entries than limit is the last.
func List(ctx context.Context, js jetstream.JetStream, from uint64, limit int) ([]Entry, error) {
	stream, err := open(ctx, js)
	if err != nil {
		return nil, err
	}
	var entries []Entry
	for next := max(from, 1); len(entries) < limit; next++ {
		msg, err := stream.GetMsg(ctx, next, jetstream.WithGetMsgSubject(subjectPrefix+">"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return entries, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list dead letters from %d: %w", next, err)
		}
		next = msg.Sequence
		if !isHead(msg) {
			continue
		}
		entry, err := readEntry(ctx, stream, msg)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

func isHead(msg *jetstream.RawStreamMsg) bool {
	return msg.Header.Get(headerPart) == "" || msg.Header.Get(headerParts) != ""
}

func readEntry(ctx context.Context, stream jetstream.Stream, head *jetstream.RawStreamMsg) (Entry, error) {
	entry := Entry{Sequence: head.Sequence, Stored: head.Time, Subject: head.Subject}
	if entry.Parts, entry.Err = partsOf(head); entry.Err != nil {
		return entry, nil
	}
	var body []byte
	for _, sequence := range entry.Parts {
		part, err := stream.GetMsg(ctx, sequence)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			entry.Err = fmt.Errorf("part %d of dead letter %d is gone", sequence, head.Sequence)
			return entry, nil
		}
		if err != nil {
			return entry, fmt.Errorf("read part %d of dead letter %d: %w", sequence, head.Sequence, err)
		}
		body = append(body, part.Data...)
	}
	if err := json.Unmarshal(append(body, head.Data...), &entry.Record); err != nil {
		entry.Err = fmt.Errorf("decode dead letter %d: %w", head.Sequence, err)
	}
	return entry, nil
}

// partsOf gives the sequences of the messages before the head that belong to its record.
func partsOf(head *jetstream.RawStreamMsg) ([]uint64, error) {
	list := head.Header.Get(headerParts)
	if list == "" {
		return nil, nil
	}
	var parts []uint64
	for text := range strings.SplitSeq(list, ",") {
		sequence, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("read parts of dead letter %d: %w", head.Sequence, err)
		}
		parts = append(parts, sequence)
	}
	return parts, nil
}
