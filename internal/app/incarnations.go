package app

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/tributary-dev/tributary/internal/natskv"
)

// incarnations keeps the last incarnation of each source in KV `leases`, where it outlives EVENTS. It implements
// ingest.Incarnations.
type incarnations struct{ bucket *natskv.Bucket }

func incarnationKey(source string) string { return "incarnation." + source }

// Last implements ingest.Incarnations.
func (in incarnations) Last(ctx context.Context, source string) (uint64, error) {
	n, _, err := in.read(ctx, source)
	return n, err
}

// Raise implements ingest.Incarnations.
func (in incarnations) Raise(ctx context.Context, source string, n uint64) error {
	for {
		now, revision, err := in.read(ctx, source)
		if err != nil {
			return err
		}
		if now >= n {
			return nil
		}
		value := []byte(strconv.FormatUint(n, 10))
		if _, err = in.bucket.Swap(ctx, incarnationKey(source), value, revision, 0); !errors.Is(err, natskv.ErrConflict) {
			return err
		}
	}
}

func (in incarnations) read(ctx context.Context, source string) (n, revision uint64, err error) {
	entry, err := in.bucket.Get(ctx, incarnationKey(source))
	if errors.Is(err, natskv.ErrNotFound) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	if n, err = strconv.ParseUint(string(entry.Value), 10, 64); err != nil {
		return 0, 0, fmt.Errorf("key %s holds %q, which is no incarnation: delete it, or write the last one", incarnationKey(source), entry.Value)
	}
	return n, entry.Revision, nil
}
