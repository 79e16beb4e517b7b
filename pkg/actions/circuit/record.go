package circuit

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/events"
)

// Keys of KV circuits.
const (
	statePrefix = "state." // and the circuit's name, hashed
	callsPrefix = "calls." // and a process's name, hashed

	recordVersion = 1
	keepOpen      = 24 * time.Hour // without a probe: nobody calls there any more
	keepClosed    = time.Hour
)

// record is a circuit as KV circuits holds it. One that is not there is closed.
type record struct {
	V      int       `json:"v"`
	Name   string    `json:"name"`
	State  State     `json:"state"`
	Epoch  uint64    `json:"epoch"`            // grows when it opens, is probed, or closes
	Opened time.Time `json:"opened,omitzero"`  // since when it is not closed
	Until  time.Time `json:"until,omitzero"`   // open: when probes may begin; probing: when another process may
	Forced bool      `json:"forced,omitempty"` // by an operator: until then, or until it is reset
	By     string    `json:"by"`               // the process that wrote this
	Since  time.Time `json:"changed,omitzero"` // when this was written
}

func stateKey(name string) string { return statePrefix + events.KVKey(name) }

func (r record) encode() ([]byte, error) {
	r.V = recordVersion
	r.Since = time.Now().UTC()
	value, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode circuit %s: %w", r.Name, err)
	}
	return value, nil
}

func decode(value []byte) (record, error) {
	var r record
	if err := json.Unmarshal(value, &r); err != nil {
		return r, fmt.Errorf("decode circuit: %w", err)
	}
	if r.V != recordVersion || r.Name == "" {
		return r, fmt.Errorf("decode circuit: version %d, name %q", r.V, r.Name)
	}
	return r, nil
}

func (r record) ttl() time.Duration {
	switch {
	case r.Forced:
		return 0
	case r.State == Closed:
		return keepClosed
	default:
		return keepOpen
	}
}

// swap writes a record in place of the revision, 0 for none.
func swap(ctx context.Context, bucket *natskv.Bucket, r record, revision uint64) (uint64, error) {
	value, err := r.encode()
	if err != nil {
		return 0, err
	}
	return bucket.Swap(ctx, stateKey(r.Name), value, revision, r.ttl())
}

// get reads a record; one that is not there, or can't be read, is closed.
func get(ctx context.Context, bucket *natskv.Bucket, name string) (record, uint64, error) {
	entry, err := bucket.Get(ctx, stateKey(name))
	if errors.Is(err, natskv.ErrNotFound) {
		return record{Name: name, State: Closed}, 0, nil
	}
	if err != nil {
		return record{}, 0, err
	}
	r, err := decode(entry.Value)
	if err != nil {
		return record{Name: name, State: Closed}, entry.Revision, nil
	}
	return r, entry.Revision, nil
}

// View is a circuit as people and scripts see it.
type View struct {
	Name    string    `json:"name"`
	State   State     `json:"state"`
	Forced  bool      `json:"forced,omitempty"` // open because an operator wants it
	Opened  time.Time `json:"opened,omitzero"`  // since when it is not closed
	Until   time.Time `json:"until,omitzero"`   // open: when it is probed; probing: until when by that process
	By      string    `json:"by"`               // who wrote this: a process, or a person
	Changed time.Time `json:"changed"`
}

// List gives the circuits that are, or lately were, not closed: those first that are open.
func List(ctx context.Context, bucket *natskv.Bucket) ([]View, error) {
	list := []View{}
	err := bucket.Each(ctx, func(key string, entry natskv.Entry) error {
		if !strings.HasPrefix(key, statePrefix) {
			return nil
		}
		if r, err := decode(entry.Value); err == nil {
			list = append(list, View{r.Name, r.State, r.Forced, r.Opened, r.Until, r.By, r.Since})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list circuits: %w", err)
	}
	rank := map[State]int{Open: 0, Probing: 1, Closed: 2}
	slices.SortFunc(list, func(a, b View) int {
		return cmp.Or(cmp.Compare(rank[a.State], rank[b.State]), strings.Compare(a.Name, b.Name))
	})
	return list, nil
}

// Force opens a circuit, whatever its calls say, for so long, or where that is 0 until Reset. By says who wants it.
func Force(ctx context.Context, bucket *natskv.Bucket, name, by string, long time.Duration) error {
	return change(ctx, bucket, name, func(r record) record {
		now := time.Now().UTC()
		next := record{Name: name, State: Open, Epoch: r.Epoch + 1, Opened: r.Opened, Forced: true, By: by}
		if r.State == Closed || r.Opened.IsZero() {
			next.Opened = now
		}
		if long > 0 {
			next.Until = now.Add(long)
		}
		return next
	})
}

// Reset closes a circuit, whatever its calls have said.
func Reset(ctx context.Context, bucket *natskv.Bucket, name, by string) error {
	return change(ctx, bucket, name, func(r record) record {
		return record{Name: name, State: Closed, Epoch: r.Epoch + 1, By: by}
	})
}

func change(ctx context.Context, bucket *natskv.Bucket, name string, to func(record) record) error {
	for {
		r, revision, err := get(ctx, bucket, name)
		if err == nil {
			_, err = swap(ctx, bucket, to(r), revision)
		}
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, natskv.ErrConflict):
			return fmt.Errorf("change circuit %s: %w", name, err)
		}
	}
}
