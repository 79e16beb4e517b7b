package cachekv_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/cachekv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that a test sets forward.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// makeBucket makes the bucket as the streams of a deployment do.
func makeBucket(t testing.TB) *natstest.Server {
	t.Helper()
	server := natstest.Start(t)
	_, err := server.JetStream(t).CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "KV_cache", Subjects: []string{"$KV.cache.>"}, Storage: jetstream.MemoryStorage, MaxMsgsPerSubject: 1,
		AllowMsgTTL: true, AllowRollup: true, DenyDelete: true, Discard: jetstream.DiscardOld,
	})
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// start gives a cache whose near cache is in use.
func start(t testing.TB, server *natstest.Server, o cachekv.Options) *cachekv.Cache {
	t.Helper()
	c := cachekv.New(server.JetStream(t), o)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Run gave %v", err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	set(t, c, "is it used", "yes", time.Hour)
	await(t, "the near cache is used", func() bool {
		_, _ = c.Get(t.Context(), "is it used")
		return c.Stats().Hits > 0
	})
	return c
}

func set(t testing.TB, c *cachekv.Cache, key, value string, ttl time.Duration) {
	t.Helper()
	if err := c.Set(t.Context(), key, []byte(value), ttl); err != nil {
		t.Fatal(err)
	}
}

func await(t testing.TB, fact string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", fact)
		}
	}
}

func has(t testing.TB, c *cachekv.Cache, key, want string) bool {
	t.Helper()
	value, err := c.Get(t.Context(), key)
	if err != nil && !errors.Is(err, cachekv.ErrMiss) && !errors.Is(err, cachekv.ErrAbsent) {
		t.Fatal(err)
	}
	return err == nil && string(value) == want
}

func TestAValueIsThereForAll(t *testing.T) {
	server := makeBucket(t)
	one, two := start(t, server, cachekv.Options{}), start(t, server, cachekv.Options{})
	for _, key := range []string{"orders/42", "a b", "a.b", "ünï", "=2E", strings.Repeat("x", 300), ".", "*", ">", "prefix", "=prefix"} {
		set(t, one, key, "value of "+key, 0)
		if !has(t, two, key, "value of "+key) {
			t.Errorf("%q is not there", key)
		}
		before := two.Stats().Hits
		if !has(t, two, key, "value of "+key) || two.Stats().Hits != before+1 {
			t.Errorf("%q is not near", key)
		}
	}
	if _, err := one.Get(t.Context(), ""); err == nil {
		t.Error("a key of nothing was looked up")
	}
}

func TestAChangeIsHeardByAll(t *testing.T) {
	server := makeBucket(t)
	one, two := start(t, server, cachekv.Options{}), start(t, server, cachekv.Options{})
	for _, key := range []string{"user/1", "user/2", "order/1"} {
		set(t, one, key, "old", 0)
		if !has(t, two, key, "old") {
			t.Fatalf("%s is not there", key)
		}
	}
	set(t, one, "user/1", "new", 0)
	await(t, "the new value is heard of", func() bool { return has(t, two, "user/1", "new") })
	if err := one.InvalidatePrefix(t.Context(), "user/"); err != nil {
		t.Fatal(err)
	}
	await(t, "the users are gone", func() bool { return !has(t, two, "user/1", "new") && !has(t, two, "user/2", "old") })
	if !has(t, two, "order/1", "old") || !has(t, one, "order/1", "old") {
		t.Error("a key of another prefix is gone")
	}
	if err := two.Invalidate(t.Context(), "order/1"); err != nil {
		t.Fatal(err)
	}
	if has(t, two, "order/1", "old") {
		t.Error("the value is there for the one who invalidated it")
	}
	await(t, "the order is gone", func() bool { return !has(t, one, "order/1", "old") })
	if err := one.InvalidatePrefix(t.Context(), ""); err == nil {
		t.Error("everything was invalidated by a prefix of nothing")
	}
}

func TestNoValueIsOlderThanItsTTL(t *testing.T) {
	server := makeBucket(t)
	var time1 clock
	c := start(t, server, cachekv.Options{Now: time1.now})
	set(t, c, "a", "1", 10*time.Second)
	for range 2 { // from the bucket, and from the near cache
		if !has(t, c, "a", "1") {
			t.Fatal("the value is not there")
		}
	}
	time1.advance(10*time.Second + time.Millisecond)
	if has(t, c, "a", "1") {
		t.Error("a value that has ended is given out")
	}
}

func TestLoadAsksOnce(t *testing.T) {
	c := start(t, makeBucket(t), cachekv.Options{})
	var loads atomic.Int64
	release := make(chan struct{})
	load := func(context.Context) ([]byte, error) {
		loads.Add(1)
		<-release
		return []byte("loaded"), nil
	}
	const callers = 20
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			if value, err := c.Load(t.Context(), "k", time.Minute, load); err != nil || string(value) != "loaded" {
				t.Errorf("Load gave %q, %v", value, err)
			}
		})
	}
	await(t, "all others wait", func() bool { return c.Stats().Coalesced == callers-1 })
	close(release)
	all.Wait()
	if n := loads.Load(); n != 1 || !has(t, c, "k", "loaded") {
		t.Errorf("loaded %d times", n)
	}
}

func TestLoadRemembersThatThereIsNothing(t *testing.T) {
	var now clock
	c := start(t, makeBucket(t), cachekv.Options{Now: now.now, NegativeTTL: 3 * time.Second})
	loads := 0
	load := func(context.Context) ([]byte, error) {
		loads++
		return nil, fmt.Errorf("user 7: %w", cachekv.ErrAbsent)
	}
	for range 3 {
		if _, err := c.Load(t.Context(), "k", 0, load); !errors.Is(err, cachekv.ErrAbsent) {
			t.Fatalf("Load gave %v", err)
		}
	}
	now.advance(4 * time.Second)
	if _, err := c.Load(t.Context(), "k", 0, load); !errors.Is(err, cachekv.ErrAbsent) || loads != 2 {
		t.Errorf("Load gave %v, loaded %d times, want 2", err, loads)
	}
	failed := errors.New("the database is away")
	for range 2 {
		if _, err := c.Load(t.Context(), "other", 0, func(context.Context) ([]byte, error) { loads++; return nil, failed }); !errors.Is(err, failed) {
			t.Errorf("Load gave %v", err)
		}
	}
	if loads != 4 {
		t.Errorf("loaded %d times: a failure was remembered", loads)
	}
}

func TestWhatWasLoadedBeforeAnInvalidationIsNotKept(t *testing.T) {
	server := makeBucket(t)
	tests := map[string]func(c *cachekv.Cache) error{
		"of the key":    func(c *cachekv.Cache) error { return c.Invalidate(t.Context(), "user/1") },
		"of its prefix": func(c *cachekv.Cache) error { return c.InvalidatePrefix(t.Context(), "user/") },
		"by a value":    func(c *cachekv.Cache) error { return c.Set(t.Context(), "user/1", []byte("newer"), 0) },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			c := start(t, server, cachekv.Options{})
			if err := c.Invalidate(t.Context(), "user/1"); err != nil {
				t.Fatal(err)
			}
			value, err := c.Load(t.Context(), "user/1", 0, func(context.Context) ([]byte, error) {
				return []byte("old"), change(c)
			})
			if err != nil || string(value) != "old" {
				t.Fatalf("Load gave %q, %v", value, err)
			}
			if has(t, c, "user/1", "old") {
				t.Error("what was loaded before is kept")
			}
		})
	}
}

func TestAWaiterOutlivesWhoAsked(t *testing.T) {
	c := start(t, makeBucket(t), cachekv.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	asked := make(chan struct{})
	all.Go(func() {
		_, err := c.Load(ctx, "k", 0, func(ctx context.Context) ([]byte, error) {
			close(asked)
			<-ctx.Done()
			return nil, ctx.Err()
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("who was cancelled got %v", err)
		}
	})
	<-asked
	all.Go(func() {
		value, err := c.Load(t.Context(), "k", 0, func(context.Context) ([]byte, error) { return []byte("mine"), nil })
		if err != nil || string(value) != "mine" {
			t.Errorf("who waited got %q, %v", value, err)
		}
	})
	await(t, "the other waits", func() bool { return c.Stats().Coalesced > 0 })
	cancel()
	all.Wait()
}

func TestTheNearCacheIsBounded(t *testing.T) {
	c := start(t, makeBucket(t), cachekv.Options{MaxBytes: 10_000})
	for i := range 50 {
		key := fmt.Sprint("k", i)
		set(t, c, key, strings.Repeat("v", 500), 0)
		if _, err := c.Get(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	stats := c.Stats()
	if stats.Bytes > 10_000 || stats.Entries == 0 || stats.Evicted == 0 {
		t.Errorf("the near cache is %+v", stats)
	}
	before := stats.Hits
	if !has(t, c, "k49", strings.Repeat("v", 500)) || c.Stats().Hits != before+1 {
		t.Error("what was used last is not near")
	}
}

func TestWithoutAWatchEveryReadAsksTheBucket(t *testing.T) {
	server := makeBucket(t)
	one, two := cachekv.New(server.JetStream(t), cachekv.Options{}), cachekv.New(server.JetStream(t), cachekv.Options{})
	for _, value := range []string{"1", "2"} {
		set(t, one, "k", value, 0)
		if !has(t, two, "k", value) || !has(t, one, "k", value) {
			t.Errorf("%s is not seen by both", value)
		}
	}
	if stats := one.Stats(); stats.Hits != 0 || stats.Entries != 0 {
		t.Errorf("the near cache was used: %+v", stats)
	}
}

func BenchmarkNearHit(b *testing.B) {
	c := start(b, makeBucket(b), cachekv.Options{})
	set(b, c, "k", "value", time.Hour)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := c.Get(b.Context(), "k"); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "hits/s")
}
