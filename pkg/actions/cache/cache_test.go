package cache_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/actionstest"
	"github.com/tributary-dev/tributary/pkg/actions/cache"
	"github.com/tributary-dev/tributary/pkg/cachekv"
	"github.com/tributary-dev/tributary/pkg/retry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newCache(t *testing.T) (*cache.Cache, *cachekv.Cache, *natstest.Server) {
	t.Helper()
	server := natstest.Start(t)
	js := server.JetStream(t)
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "KV_cache", Subjects: []string{"$KV.cache.>"}, Storage: jetstream.MemoryStorage, MaxMsgsPerSubject: 1,
		AllowMsgTTL: true, AllowRollup: true, DenyDelete: true, Discard: jetstream.DiscardOld,
	})
	if err != nil {
		t.Fatal(err)
	}
	store := cachekv.New(js, cachekv.Options{})
	return cache.New(store), store, server
}

func TestConformance(t *testing.T) {
	actionstest.Run(t, func(t *testing.T) actionstest.Fixture {
		action, _, server := newCache(t)
		request := func(method string) actions.Request {
			return actions.Request{Type: cache.Type, Method: method, URL: "user/" + actionstest.Payload, Body: []byte(actionstest.Payload)}
		}
		return actionstest.Fixture{
			Action: action, Request: request(cache.Set),
			Lacks: map[string]string{
				"keys":                    "a change of the cache may be done again: it gives the same",
				string(actionstest.Fails): "while NATS is away an attempt waits for it, as under " + string(actionstest.Hangs),
			},
			Faults: map[actionstest.Fault]func(*testing.T) actions.Request{
				actionstest.Refuses: func(*testing.T) actions.Request { return request("REMEMBER") },
				actionstest.Hangs:   func(*testing.T) actions.Request { server.Stop(); return request(cache.Invalidate) },
			},
		}
	})
}

func TestDoChangesTheCache(t *testing.T) {
	action, store, _ := newCache(t)
	do := func(request actions.Request) {
		t.Helper()
		if _, err := action.Do(t.Context(), actions.Effect{Key: "k"}, request); err != nil {
			t.Fatal(err)
		}
	}
	check := func(key, want string) {
		t.Helper()
		value, err := store.Get(t.Context(), key)
		if want == "" && !errors.Is(err, cachekv.ErrMiss) || want != "" && string(value) != want {
			t.Errorf("%s holds %q, %v, want %q", key, value, err, want)
		}
	}
	for _, key := range []string{"user/1", "user/2", "order/1"} {
		do(actions.Request{Method: cache.Set, URL: key, Body: []byte(`"` + key + `"`), Header: []actions.Header{{Name: "TTL", Value: "1h"}}})
		check(key, `"`+key+`"`)
	}
	do(actions.Request{Method: cache.Invalidate, URL: "user/1"})
	check("user/1", "")
	check("user/2", `"user/2"`)
	do(actions.Request{Method: cache.InvalidatePrefix, URL: "user/"})
	check("user/2", "")
	check("order/1", `"order/1"`)
	do(actions.Request{Method: cache.Set, URL: "brief", Body: []byte("1"), Header: []actions.Header{{Name: "TTL", Value: "1ms"}}})
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); {
		if _, err := store.Get(t.Context(), "brief"); errors.Is(err, cachekv.ErrMiss) {
			return
		}
	}
	t.Error("a value outlives its TTL")
}

func TestDoRefusesForGood(t *testing.T) {
	action, _, _ := newCache(t)
	tests := map[string]actions.Request{
		"no key":                {Method: cache.Invalidate},
		"no method":             {URL: "a"},
		"a TTL that is none":    {Method: cache.Set, URL: "a", Header: []actions.Header{{Name: "TTL", Value: "soon"}}},
		"a TTL of nothing":      {Method: cache.Set, URL: "a", Header: []actions.Header{{Name: "TTL", Value: "0s"}}},
		"more than NATS stores": {Method: cache.Set, URL: "a", Body: bytes.Repeat([]byte("a"), 2<<20)},
	}
	for name, request := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := action.Do(t.Context(), actions.Effect{}, request); !retry.IsPermanent(err) {
				t.Errorf("the attempt gave %v, want a permanent error", err)
			}
		})
	}
}
