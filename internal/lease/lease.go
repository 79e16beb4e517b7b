// Package lease lets one of several processes work at a time.
//
// It promises that work's context has ended before another process can take the lease, as long as clocks run at the
// same rate: work that heeds its context is not done twice at a time, also when its process was cut off from NATS or
// frozen. It relies on a KV bucket that allows TTLs (streams.Apply makes `leases`). It does not fence: what work has
// sent before its context ended may still arrive, so what must not be overtaken needs an expectation of its own.
package lease

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tributary-dev/tributary/internal/natskv"
)

// ErrLost is why work's context ended where it can't be sure any more that the lease is held.
var ErrLost = errors.New("lease lost")

const (
	defaultTTL    = 3 * time.Second
	releaseWithin = time.Second
	releasedTTL   = time.Second // how long a release is seen; longer than a watcher needs, and nothing stays behind
)

// Options are what a Keeper may be told. The zero value works.
type Options struct {
	TTL   time.Duration // after a holder's death the lease is free; whole seconds, rounded up; 3 s by default
	Owner string        // names the holder to people; may be empty
	Log   *slog.Logger  // takes and losses; none by default
}

// Keeper holds one lease, again and again. Use one for each holder; several may share a process.
type Keeper struct {
	bucket *natskv.Bucket
	key    string
	ttl    time.Duration
	owner  string
	log    *slog.Logger
}

// New gives a keeper of the lease that is a key of bucket.
func New(bucket *natskv.Bucket, key string, options Options) *Keeper {
	k := &Keeper{bucket: bucket, key: key, ttl: defaultTTL, owner: options.Owner, log: slog.New(slog.DiscardHandler)}
	if options.TTL > 0 {
		k.ttl = (options.TTL + time.Second - 1).Truncate(time.Second)
	}
	if options.Log != nil {
		k.log = options.Log.With("lease", key)
	}
	return k
}

// sure is for how long after a renewal was sent the lease surely is ours. The server counts from the arrival, and for
// the whole TTL; the rest is work's time to stop.
func (k *Keeper) sure() time.Duration { return k.ttl - k.ttl/10 }

// record is the value of the key. Its nonce tells this Hold from all others, as natskv asks for.
type record struct {
	Owner    string    `json:"owner"`
	Nonce    string    `json:"nonce"`
	Since    time.Time `json:"since"`              // of the taking
	Released bool      `json:"released,omitempty"` // free: a delete would not be seen by those who watch
}

func (r record) encode() []byte {
	data, err := json.Marshal(r)
	if err != nil {
		panic("unreachable: texts, a time and a bool become JSON: " + err.Error())
	}
	return data
}

// Hold waits until the lease is free, takes it, runs work and gives the lease back: at once to who waits for it. work's
// context ends with ctx, and with cause ErrLost as soon as no renewal was acknowledged for most of the TTL, counted
// from its sending. Hold returns after work, with work's error; where that is the end of its context and the lease was
// lost, with ErrLost. Before work it errs where ctx ends, or where the bucket refuses, as when it does not exist.
func (k *Keeper) Hold(ctx context.Context, work func(ctx context.Context) error) error {
	holding := &hold{keeper: k, record: record{Owner: k.owner, Nonce: rand.Text()}}
	if err := holding.acquire(ctx); err != nil {
		return fmt.Errorf("take lease %s: %w", k.key, err)
	}
	k.log.Info("lease taken")
	workCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	keepCtx, stop := context.WithCancel(context.WithoutCancel(ctx)) // work may need the lease while it ends
	var keeping sync.WaitGroup
	keeping.Go(func() { holding.renew(keepCtx, cancel) })
	keeping.Go(func() { holding.watchdog(keepCtx, cancel) })
	err := runWork(workCtx, work, func() {
		stop()
		keeping.Wait()
	})
	lost := context.Cause(workCtx)
	if !errors.Is(lost, ErrLost) {
		holding.release(ctx)
		return err
	}
	k.log.Warn("lease lost", "error", lost)
	if errors.Is(err, context.Canceled) || errors.Is(err, ErrLost) {
		return fmt.Errorf("hold lease %s: %w", k.key, lost)
	}
	return err
}

// runWork calls after also where work panics, so that no renewal outlives it.
func runWork(ctx context.Context, work func(context.Context) error, after func()) error {
	defer after()
	return work(ctx)
}
