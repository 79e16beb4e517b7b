// Package lookup answers the lookups of observers: by an HTTP GET or a SELECT, through the cache that all services share.
//
// It promises that one question is under way once in a process however many ask it, that no answer is older than the
// lookup's TTL, and that what a question was told for good, that there is nothing, is remembered too, for its negative TTL.
// Values of an event are bound or escaped, never written into a statement or an address; requests go where the egress rules
// let them, follow no redirect, and are never more than one per question. It errs with observers.ErrNoAnswer where there is
// nothing; an error marked retry.Permanent is final, every other may pass. No error holds a value, a secret, or more of a URL
// than scheme, host and port.
package lookup

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/cachekv"
	"github.com/tributary-dev/tributary/pkg/observers"
)

// MaxAnswer is the most that an answer may have, in bytes.
const MaxAnswer = 256 << 10

// databases runs statements; it is *sql.SQL as NewReader makes it.
type databases interface {
	// Read gives the first column of the first row as text, nil for NULL or where there is none.
	Read(ctx context.Context, reference, statement string, args [][]byte) ([]byte, error)
}

// Options of Lookups. The zero value works.
type Options struct {
	Cache   *cachekv.Cache // nil to ask each time
	Version string         // of Tributary, in the User-Agent; "dev" where it is empty
	Metrics *Metrics
	Now     func() time.Time // time.Now where it is nil
}

// Lookups answers lookups. It is safe for concurrent use.
type Lookups struct {
	transport http.RoundTripper
	secrets   *secret.Resolver
	databases databases
	o         Options

	mu     sync.Mutex
	parsed map[string]*observers.Action // of pending requests, by body; guarded by mu
}

// New makes Lookups; transport is egress.NewTransport's.
func New(transport http.RoundTripper, secrets *secret.Resolver, databases databases, o Options) *Lookups {
	if o.Version == "" {
		o.Version = "dev"
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Lookups{transport: transport, secrets: secrets, databases: databases, o: o, parsed: make(map[string]*observers.Action)}
}

// Fetch answers one question; it is an observers.Fetch.
func (l *Lookups) Fetch(ctx context.Context, q observers.Lookup) ([]byte, error) {
	answer, err := l.fetch(ctx, q)
	l.o.Metrics.count(err)
	return answer, err
}

func (l *Lookups) fetch(ctx context.Context, q observers.Lookup) ([]byte, error) {
	if l.o.Cache == nil {
		return l.ask(ctx, q)
	}
	answer, err := l.o.Cache.LoadFor(ctx, q.Key, cachekv.TTLs{Value: q.TTL, Absent: q.NegativeTTL}, func(ctx context.Context) ([]byte, error) {
		answer, err := l.ask(ctx, q)
		if errors.Is(err, observers.ErrNoAnswer) {
			return nil, cachekv.ErrAbsent
		}
		return answer, err
	})
	switch {
	case errors.Is(err, cachekv.ErrAbsent):
		return nil, observers.ErrNoAnswer
	case answer != nil: // that it could not be kept is of no matter to who asks
		return answer, nil
	default:
		return nil, err
	}
}

// ask asks whoever knows.
func (l *Lookups) ask(ctx context.Context, q observers.Lookup) ([]byte, error) {
	begun := l.o.Now()
	defer func() { l.o.Metrics.seconds.Observe(l.o.Now().Sub(begun).Seconds()) }()
	limited, cancel := context.WithTimeout(ctx, q.Timeout)
	defer cancel()
	var answer []byte
	var err error
	switch q.Type {
	case observers.LookupHTTP:
		answer, err = l.get(limited, q)
	case observers.LookupSQL:
		answer, err = l.read(limited, q)
	default:
		return nil, fmt.Errorf("unknown type %q", q.Type)
	}
	// What is cancelled is who asked, not the question: others who wait for it ask themselves then.
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("interrupted: %w", context.Cause(ctx))
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("no answer within %s", q.Timeout)
	}
	return answer, err
}

// Resolve makes the request of a pending one, for an event that came under subject. It errs as observers.Pending.Resolve
// does.
func (l *Lookups) Resolve(ctx context.Context, request actions.Request, subject string, event []byte) (actions.Request, error) {
	pending, err := observers.ParsePending(request, subject, event, l.known)
	if err != nil {
		return actions.Request{}, &actions.RenderError{Err: err}
	}
	return pending.Resolve(ctx, l.Fetch)
}

const mostParsed = 256 // pending bodies that are remembered: about one for each action with lookups

// known remembers what bodies were parsed to: all jobs of an action have the same.
func (l *Lookups) known(body []byte, parse func() (*observers.Action, error)) (*observers.Action, error) {
	l.mu.Lock()
	action, ok := l.parsed[string(body)]
	l.mu.Unlock()
	if ok {
		return action, nil
	}
	action, err := parse()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.parsed) >= mostParsed {
		clear(l.parsed)
	}
	l.parsed[string(body)] = action
	return action, nil
}
