// Package cached answers a request that has succeeded lately from the cache that all services share, instead of sending it
// again, where its action asks for that.
//
// Two requests are one where they have the key that their action names, or else where type, endpoint, method, URL, headers and
// body as they were rendered are the same: what a sending adds for its effect (idempotency key, sequence, signature) is left
// out. One that is under way is waited for by the others of its process, which share its outcome. Failures are not kept. While
// the cache is away every request is sent.
package cached

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/cachekv"
)

// KeyPrefix is before the keys of results, so that no other value of the cache is taken for one.
const KeyPrefix = "action/"

// store is the cache; it is *cachekv.Cache.
type store interface {
	LoadFor(ctx context.Context, key string, ttl cachekv.TTLs, load func(context.Context) ([]byte, error)) ([]byte, error)
}

type performer interface {
	Do(ctx context.Context, effect actions.Effect, request actions.Request) (actions.Outcome, error)
}

// Actions performs attempts, or answers them. It is safe for concurrent use.
type Actions struct {
	next    performer
	cache   store
	metrics *Metrics
}

// New wraps what performs attempts, an actions.Registry; metrics may be nil.
func New(next performer, cache store, metrics *Metrics) *Actions {
	if metrics == nil {
		metrics = NewMetrics(nil)
	}
	return &Actions{next, cache, metrics}
}

// kept is an outcome as the cache holds it.
type kept struct {
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// answered is the detail of an outcome that was not sent for.
const answered = "answered from the cache"

// Do performs one attempt within the request's timeout, unless a result is there.
func (a *Actions) Do(ctx context.Context, effect actions.Effect, request actions.Request) (actions.Outcome, error) {
	if request.Cache == nil {
		return a.next.Do(ctx, effect, request)
	}
	waiting, cancel := context.WithTimeout(ctx, request.Timeout)
	defer cancel()
	var outcome actions.Outcome
	var failure error
	sent := false
	value, err := a.cache.LoadFor(waiting, keyOf(&request), cachekv.TTLs{Value: request.Cache.TTL}, func(context.Context) ([]byte, error) {
		sent = true
		if outcome, failure = a.next.Do(ctx, effect, request); failure != nil {
			return nil, &sharedError{outcome, failure}
		}
		return json.Marshal(kept{outcome.Status, outcome.Detail})
	})
	var shared *sharedError
	switch {
	case sent:
		a.metrics.results.WithLabelValues(resultSent).Inc()
		return outcome, failure
	case value != nil:
		var k kept
		if err := json.Unmarshal(value, &k); err == nil {
			a.metrics.results.WithLabelValues(resultAnswered).Inc()
			return actions.Outcome{Status: k.Status, Detail: answered}, nil
		}
	case errors.As(err, &shared):
		a.metrics.results.WithLabelValues(resultShared).Inc()
		return shared.outcome, shared.err
	}
	a.metrics.results.WithLabelValues(resultSent).Inc() // the cache is away, or holds what is not ours
	return a.next.Do(ctx, effect, request)
}

// sharedError is the failure of an attempt that others wait for.
type sharedError struct {
	outcome actions.Outcome
	err     error
}

func (e *sharedError) Error() string { return e.err.Error() }
func (e *sharedError) Unwrap() error { return e.err }

func keyOf(r *actions.Request) string {
	if r.Cache.Key != "" {
		return KeyPrefix + r.Cache.Key
	}
	same := *r
	same.Cache, same.Timeout, same.Permanent = nil, 0, nil
	text, _ := json.Marshal(same) // a struct of texts always has JSON
	sum := sha256.Sum256(text)
	return KeyPrefix + hex.EncodeToString(sum[:])
}

// Metrics count what became of attempts whose results may be kept. They exist at zero from the start.
type Metrics struct{ results *prometheus.CounterVec }

const (
	resultAnswered = "answered"
	resultShared   = "shared"
	resultSent     = "sent"
)

// NewMetrics makes the metrics, and registers them where reg is not nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tributary_actions_cached_total",
		Help: "Attempts of actions with a cache: answered from it, shared with one that was under way and failed, or sent.",
	}, []string{"result"})}
	for _, result := range []string{resultAnswered, resultShared, resultSent} {
		m.results.WithLabelValues(result)
	}
	if reg != nil {
		reg.MustRegister(m.results)
	}
	return m
}
