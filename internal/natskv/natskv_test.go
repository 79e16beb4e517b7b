package natskv_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/internal/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, natstest.Leaks()...) }

// The writes that are one decision, each as a key's history and what comes of it.
func TestWrites(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	makeBucket(t, js, 1)
	b := natskv.Open(js, "test")
	cases := map[string]struct {
		do    func(t *testing.T, key string) error
		want  error
		value string // empty for an absent key
	}{
		"create writes an absent key": {
			do:    func(t *testing.T, key string) error { return second(b.Create(t.Context(), key, []byte("a"), 0)) },
			value: "a",
		},
		"create refuses a key that is there": {
			do: func(t *testing.T, key string) error {
				create(t, b, key, "a")
				return second(b.Create(t.Context(), key, []byte("b"), 0))
			},
			want: natskv.ErrConflict, value: "a",
		},
		"create refuses the same value too": {
			do: func(t *testing.T, key string) error {
				create(t, b, key, "a")
				return second(b.Create(t.Context(), key, []byte("a"), 0))
			},
			want: natskv.ErrConflict, value: "a",
		},
		"create follows a delete": {
			do: func(t *testing.T, key string) error {
				if err := b.Delete(t.Context(), key, create(t, b, key, "a")); err != nil {
					t.Fatal(err)
				}
				return second(b.Create(t.Context(), key, []byte("b"), 0))
			},
			value: "b",
		},
		"create follows a marker that another client left": {
			do: func(t *testing.T, key string) error {
				create(t, b, key, "a")
				kv, err := js.KeyValue(t.Context(), "test")
				if err != nil {
					t.Fatal(err)
				}
				if err := kv.Delete(t.Context(), key); err != nil {
					t.Fatal(err)
				}
				if _, err := b.Get(t.Context(), key); !errors.Is(err, natskv.ErrNotFound) {
					t.Errorf("get of a marker: got error %v, want ErrNotFound", err)
				}
				return second(b.Create(t.Context(), key, []byte("b"), 0))
			},
			value: "b",
		},
		"update writes over the revision it names": {
			do: func(t *testing.T, key string) error {
				return second(b.Update(t.Context(), key, []byte("b"), create(t, b, key, "a"), 0))
			},
			value: "b",
		},
		"update refuses another revision": {
			do: func(t *testing.T, key string) error {
				revision := create(t, b, key, "a")
				if _, err := b.Put(t.Context(), key, []byte("b"), 0); err != nil {
					t.Fatal(err)
				}
				return second(b.Update(t.Context(), key, []byte("c"), revision, 0))
			},
			want: natskv.ErrConflict, value: "b",
		},
		"update refuses an absent key": {
			do: func(t *testing.T, key string) error {
				revision := create(t, b, key, "a")
				if err := b.Delete(t.Context(), key, revision); err != nil {
					t.Fatal(err)
				}
				return second(b.Update(t.Context(), key, []byte("b"), revision, 0))
			},
			want: natskv.ErrConflict,
		},
		"delete removes the revision it names": {
			do: func(t *testing.T, key string) error { return b.Delete(t.Context(), key, create(t, b, key, "a")) },
		},
		"delete keeps a newer revision": {
			do: func(t *testing.T, key string) error {
				revision := create(t, b, key, "a")
				if _, err := b.Put(t.Context(), key, []byte("b"), 0); err != nil {
					t.Fatal(err)
				}
				return b.Delete(t.Context(), key, revision)
			},
			want: natskv.ErrConflict, value: "b",
		},
		"delete is content with an absent key": {
			do: func(t *testing.T, key string) error {
				revision := create(t, b, key, "a")
				return errors.Join(b.Delete(t.Context(), key, revision), b.Delete(t.Context(), key, revision))
			},
		},
		"a key outside of the alphabet is refused": {
			do:   func(t *testing.T, _ string) error { return second(b.Create(t.Context(), "a b", nil, 0)) },
			want: jetstream.ErrInvalidKey,
		},
		"a key that is a pattern is refused": {
			do:   func(t *testing.T, _ string) error { return second(b.Get(t.Context(), "*")) },
			want: jetstream.ErrInvalidKey,
		},
	}
	keys := 0
	for name, c := range cases {
		keys++
		key := fmt.Sprintf("key.%d", keys)
		t.Run(name, func(t *testing.T) {
			if err := c.do(t, key); !errors.Is(err, c.want) {
				t.Errorf("got error %v, want %v", err, c.want)
			}
			entry, err := b.Get(t.Context(), key)
			if c.value == "" {
				if !errors.Is(err, natskv.ErrNotFound) {
					t.Errorf("get: got %q, error %v, want ErrNotFound", entry.Value, err)
				}
				return
			}
			if err != nil || string(entry.Value) != c.value {
				t.Errorf("get: got %q, error %v, want %q", entry.Value, err, c.value)
			}
		})
	}
}

func TestCreateOrGetGivesWhatIsThere(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	makeBucket(t, js, 1)
	b := natskv.Open(js, "test")
	revision := create(t, b, "k", "theirs")
	entry, err := b.CreateOrGet(t.Context(), "k", []byte("ours"), 0)
	if !errors.Is(err, natskv.ErrConflict) || string(entry.Value) != "theirs" || entry.Revision != revision {
		t.Errorf("got %q at %d, error %v; want theirs at %d, ErrConflict", entry.Value, entry.Revision, err, revision)
	}
}

func TestUpdateKeepsTheTTL(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	makeBucket(t, js, 1)
	b := natskv.Open(js, "test")
	revision, err := b.Create(t.Context(), "k", []byte("a"), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Update(t.Context(), "k", []byte("b"), revision, time.Second); err != nil {
		t.Fatal(err)
	}
	await(t, "the key expires, and can be created again", func() bool {
		_, err := b.Create(t.Context(), "k", []byte("c"), 0)
		return err == nil
	})
	// Nothing of the expired key stayed behind, for then the create would not have been the first message since.
	stream, err := js.Stream(t.Context(), "KV_test")
	if err != nil {
		t.Fatal(err)
	}
	if got := stream.CachedInfo().State; got.Msgs != 1 || got.LastSeq != 3 {
		t.Errorf("the stream has %d messages up to %d, want 1 up to 3", got.Msgs, got.LastSeq)
	}
}

func TestWritesWithoutBucketAreRefused(t *testing.T) {
	b := natskv.Open(natstest.Start(t).JetStream(t), "nowhere")
	for name, err := range map[string]error{
		"get":    second(b.Get(t.Context(), "k")),
		"create": second(b.Create(t.Context(), "k", nil, 0)),
		"delete": b.Delete(t.Context(), "k", 1),
	} {
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			t.Errorf("%s: got error %v, want ErrStreamNotFound", name, err)
		}
	}
}

func TestWritesGoOnWhenTheServerIsBack(t *testing.T) {
	srv := natstest.Start(t)
	js := srv.JetStream(t)
	makeBucket(t, js, 1)
	b := natskv.Open(js, "test")
	create(t, b, "before", "x")
	srv.Stop()
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := b.Create(short, "k", []byte("a"), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("create without a server: got error %v, want DeadlineExceeded", err)
	}
	written := make(chan error, 1)
	go func() { written <- second(b.Create(t.Context(), "k", []byte("a"), 0)) }()
	srv.Restart(t)
	if err := <-written; err != nil {
		t.Error(err)
	}
}

func TestPutAsyncArrives(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	makeBucket(t, js, 1)
	b := natskv.Open(js, "test")
	if err := b.PutAsync("k", []byte("a"), time.Minute); err != nil {
		t.Fatal(err)
	}
	await(t, "the value is there", func() bool {
		entry, err := b.Get(t.Context(), "k")
		return err == nil && string(entry.Value) == "a"
	})
}

func BenchmarkCreate(b *testing.B) {
	js := natstest.Start(b, func(o *server.Options) { o.NoSigs = true }).JetStream(b)
	makeBucket(b, js, 1)
	bucket := natskv.Open(js, "test")
	value := make([]byte, 150)
	var next atomic.Int64
	var callers sync.WaitGroup
	b.ResetTimer()
	for range 42 {
		callers.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if _, err := bucket.Create(b.Context(), fmt.Sprint("key-", i), value, 5*time.Minute); err != nil {
					b.Error(err)
				}
			}
		})
	}
	callers.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "creates/s")
}

func makeBucket(t testing.TB, js jetstream.JetStream, replicas int) jetstream.Stream {
	t.Helper()
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "KV_test", Subjects: []string{"$KV.test.>"}, Replicas: replicas,
		MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, AllowMsgTTL: true, AllowRollup: true, DenyDelete: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func create(t *testing.T, b *natskv.Bucket, key, value string) uint64 {
	t.Helper()
	revision, err := b.Create(t.Context(), key, []byte(value), 0)
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

func second[T any](_ T, err error) error { return err }

// await waits for a fact that nothing announces.
func await(t *testing.T, fact string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", fact)
		}
	}
}
