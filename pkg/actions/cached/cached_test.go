package cached_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/cached"
	"github.com/tributary-dev/tributary/pkg/cachekv"
	"github.com/tributary-dev/tributary/streams"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sender counts what is sent, and gives what a test wants.
type sender struct {
	answer func(ctx context.Context) error

	mu   sync.Mutex
	sent []string // effect keys; guarded by mu
}

func (s *sender) Do(ctx context.Context, effect actions.Effect, _ actions.Request) (actions.Outcome, error) {
	s.mu.Lock()
	s.sent = append(s.sent, effect.Key)
	s.mu.Unlock()
	if s.answer != nil {
		if err := s.answer(ctx); err != nil {
			return actions.Outcome{Status: 503}, err
		}
	}
	return actions.Outcome{Status: 201, Detail: "made"}, nil
}

func (s *sender) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sent)
}

func newActions(t *testing.T, s *sender) (*cached.Actions, *natstest.Server, *cachekv.Cache) {
	t.Helper()
	server := natstest.Start(t)
	js := server.JetStream(t)
	if _, err := streams.Apply(t.Context(), js, streams.Options{}); err != nil {
		t.Fatal(err)
	}
	cache := cachekv.New(js, cachekv.Options{})
	return cached.New(s, cache, nil), server, cache
}

func request(change ...func(*actions.Request)) actions.Request {
	r := actions.Request{
		Type: "webhook", Endpoint: "https://a.example:443", Method: "POST", URL: "https://a.example/x", Body: []byte(`{"n":1}`),
		Header: []actions.Header{{Name: "A", Value: "b"}}, Timeout: 5 * time.Second, Cache: &actions.Cache{TTL: time.Minute},
	}
	for _, c := range change {
		c(&r)
	}
	return r
}

func do(t *testing.T, a *cached.Actions, key string, r actions.Request) actions.Outcome {
	t.Helper()
	outcome, err := a.Do(t.Context(), actions.Effect{Key: key}, r)
	if err != nil {
		t.Errorf("%s: %v", key, err)
	}
	return outcome
}

func TestIdenticalRequestIsSentOnce(t *testing.T) {
	s := &sender{}
	a, _, cache := newActions(t, s)
	if first := do(t, a, "1", request()); first.Status != 201 || first.Detail != "made" {
		t.Errorf("the first outcome is %+v", first)
	}
	if second := do(t, a, "2", request()); second.Status != 201 || second.Detail != "answered from the cache" {
		t.Errorf("the second outcome is %+v", second)
	}
	others := map[string]func(*actions.Request){
		"body":     func(r *actions.Request) { r.Body = []byte(`{"n":2}`) },
		"url":      func(r *actions.Request) { r.URL += "y" },
		"method":   func(r *actions.Request) { r.Method = "PUT" },
		"header":   func(r *actions.Request) { r.Header = []actions.Header{{Name: "A", Value: "c"}} },
		"type":     func(r *actions.Request) { r.Type = "slack" },
		"secret":   func(r *actions.Request) { r.Secrets = []string{"env:OTHER"} },
		"its key":  func(r *actions.Request) { r.Cache.Key = "k" },
		"no cache": func(r *actions.Request) { r.Cache = nil },
	}
	sent := 1
	for name, change := range others {
		do(t, a, name, request(change))
		if sent++; s.count() != sent {
			t.Errorf("one with another %s: %d were sent, want %d", name, s.count(), sent)
		}
	}
	do(t, a, "by key", request(others["its key"], others["body"]))
	if s.count() != sent {
		t.Error("one of the same key was sent again")
	}
	if err := cache.Invalidate(t.Context(), cached.KeyPrefix+"k"); err != nil {
		t.Fatal(err)
	}
	do(t, a, "after", request(others["its key"]))
	if s.count() != sent+1 {
		t.Error("what was invalidated was answered")
	}
}

func TestRequestsAtTheSameTimeAreOne(t *testing.T) {
	hold := make(chan struct{})
	s := &sender{answer: func(context.Context) error { <-hold; return nil }}
	a, _, _ := newActions(t, s)
	var all sync.WaitGroup
	for _, key := range []string{"1", "2", "3", "4"} {
		all.Go(func() { do(t, a, key, request()) })
	}
	close(hold)
	all.Wait()
	if s.count() != 1 {
		t.Errorf("%d were sent", s.count())
	}
}

func TestFailureIsNotKept(t *testing.T) {
	busy := errors.New("busy")
	s := &sender{answer: func(context.Context) error { return busy }}
	a, _, _ := newActions(t, s)
	for range 2 {
		if outcome, err := a.Do(t.Context(), actions.Effect{Key: "1"}, request()); !errors.Is(err, busy) || outcome.Status != 503 {
			t.Errorf("%+v, %v", outcome, err)
		}
	}
	if s.count() != 2 {
		t.Errorf("%d were sent, want each", s.count())
	}
}

func TestResultIsNoOlderThanItsTTL(t *testing.T) {
	s := &sender{}
	a, _, _ := newActions(t, s)
	short := func(r *actions.Request) { r.Cache.TTL = 30 * time.Millisecond }
	do(t, a, "1", request(short))
	ended := time.NewTimer(40 * time.Millisecond)
	<-ended.C
	do(t, a, "2", request(short))
	if s.count() != 2 {
		t.Errorf("%d were sent, want both", s.count())
	}
}

func TestForeignValueIsNoResult(t *testing.T) {
	s := &sender{}
	a, _, cache := newActions(t, s)
	if err := cache.Set(t.Context(), cached.KeyPrefix+"k", []byte("no result"), time.Minute); err != nil {
		t.Fatal(err)
	}
	if got := do(t, a, "1", request(func(r *actions.Request) { r.Cache.Key = "k" })); got.Detail != "made" {
		t.Errorf("%+v", got)
	}
}

func TestWithoutTheCacheRequestsAreSent(t *testing.T) {
	s := &sender{}
	a, server, _ := newActions(t, s)
	server.Stop()
	if got := do(t, a, "1", request(func(r *actions.Request) { r.Timeout = 300 * time.Millisecond })); got.Detail != "made" {
		t.Errorf("%+v", got)
	}
}
