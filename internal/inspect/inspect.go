// Package inspect reads from the live system what a deployment is doing: for the operator's command and the console.
//
// It promises that every figure was read while it was asked for, from the streams, buckets, consumers and databases
// themselves; there is no second book-keeping that could differ. It changes nothing but, for a moment, consumers of its own.
// What it gives has JSON that is stable: fields are added, never renamed or removed.
package inspect

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
)

// System is a deployment to look at.
type System struct {
	JS        jetstream.JetStream
	Databases []Database // of the sources that the configuration names
	Jobs      *jobs.Store
	dedup     *dedupkv.Store
}

// Database is what the configuration says of a source.
type Database struct {
	Source   string
	Slot     string
	URL      func() (string, error) // errs where the secret is not there
	Mirrored bool                   // whether ingest keeps the position there, too
}

// New makes a System.
func New(js jetstream.JetStream, databases []Database) (*System, error) {
	dedup, err := dedupkv.New(natskv.Open(js, events.BucketDedup), dedupkv.Options{})
	if err != nil {
		return nil, err
	}
	return &System{JS: js, Databases: databases, Jobs: jobs.NewStore(js, jobs.StoreOptions{}), dedup: dedup}, nil
}

// ErrNotSetUp says that no service has made the streams yet.
var ErrNotSetUp = errors.New("the streams are not there yet: start a service (ingest, worker, jobrunner or tributary dev), which makes them")

// ErrNotFound says that what was named is not there.
var ErrNotFound = errors.New("not found")

func (s *System) stream(ctx context.Context, name string) (jetstream.Stream, error) {
	stream, err := s.JS.Stream(ctx, name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, fmt.Errorf("%w (stream %s)", ErrNotSetUp, name)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", name, err)
	default:
		return stream, nil
	}
}
