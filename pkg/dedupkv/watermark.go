package dedupkv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/events"
)

// Line is the events of one source, of one incarnation, in one partition of EVENTS: they ascend by their sequence.
type Line struct {
	Made        int64 // when EVENTS was made, in Unix nanoseconds: in one that is made anew, sequences may begin anew
	Source      string
	Incarnation uint64 // 0 for what applications published
	Partition   int
}

func (l Line) key() string {
	return "watermark." + l.text() + "." + events.PartitionName(l.Partition)
}

// Watermark says that every event of a line at or below At is settled.
type Watermark struct {
	At       events.Sequence // zero where nothing is known
	Revision uint64          // 0 where none is stored
}

type wireWatermark struct {
	V  int    `json:"v"`
	At string `json:"at"`
}

// Watermark reads the watermark of a line.
func (s *Store) Watermark(ctx context.Context, line Line) (Watermark, error) {
	mark, err := s.watermark(ctx, line.key())
	if err != nil {
		return Watermark{}, fmt.Errorf("read watermark: %w", err)
	}
	return mark, nil
}

func (s *Store) watermark(ctx context.Context, key string) (Watermark, error) {
	there, err := s.bucket.Get(ctx, key)
	if errors.Is(err, natskv.ErrNotFound) {
		return Watermark{}, nil
	}
	if err != nil {
		return Watermark{}, err
	}
	var wire wireWatermark
	if err := json.Unmarshal(there.Value, &wire); err != nil {
		return Watermark{}, fmt.Errorf("decode %s: %w", key, err)
	}
	if wire.V != recordVersion {
		return Watermark{}, fmt.Errorf("decode %s: version %d is not %d", key, wire.V, recordVersion)
	}
	at, err := events.ParseSequence(wire.At)
	if err != nil {
		return Watermark{}, fmt.Errorf("decode %s: %w", key, err)
	}
	return Watermark{At: at, Revision: there.Revision}, nil
}

// SaveWatermark raises the watermark of a line to at, and gives the one that is stored then: known is what the caller
// read or saved last. A stored one that is higher stays.
func (s *Store) SaveWatermark(ctx context.Context, line Line, at events.Sequence, known Watermark) (Watermark, error) {
	key := line.key()
	value := append(at.AppendText([]byte(`{"v":1,"at":"`)), `"}`...)
	for {
		if at.Compare(known.At) <= 0 && known.Revision > 0 {
			return known, nil
		}
		revision, err := s.bucket.Swap(ctx, key, value, known.Revision, 0)
		if err == nil {
			return Watermark{At: at, Revision: revision}, nil
		}
		if !errors.Is(err, natskv.ErrConflict) {
			return known, fmt.Errorf("save watermark: %w", err)
		}
		if known, err = s.watermark(ctx, key); err != nil {
			return known, fmt.Errorf("save watermark: %w", err)
		}
	}
}
