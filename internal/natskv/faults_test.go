package natskv_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/internal/natstest"
)

// A stream without acks stores what is written and answers nothing, as if the answer were lost on its way.
func TestLostAnswersAreSettledByReading(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	stream := makeBucket(t, js, 1)
	b := natskv.Open(js, "test")
	revision := create(t, b, "updated", "old")
	theirs := create(t, b, "lost", "old")

	config := stream.CachedInfo().Config
	config.NoAck = true
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	var created, updated, lost error
	var writers sync.WaitGroup
	writers.Go(func() { created = second(b.Create(t.Context(), "created", []byte("ours"), 0)) })
	writers.Go(func() { updated = second(b.Update(t.Context(), "updated", []byte("ours"), revision, 0)) })
	await(t, "both are stored", func() bool {
		one, _ := b.Get(t.Context(), "created")
		other, _ := b.Get(t.Context(), "updated")
		return string(one.Value) == "ours" && string(other.Value) == "ours"
	})
	if err := js.Conn().Publish("$KV.test.lost", []byte("theirs")); err != nil {
		t.Fatal(err)
	}
	writers.Go(func() { lost = second(b.Update(t.Context(), "lost", []byte("ours"), theirs, 0)) })
	config.NoAck = false
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	writers.Wait()
	if created != nil || updated != nil || !errors.Is(lost, natskv.ErrConflict) {
		t.Errorf("create: %v, update: %v, want neither; update over another's: %v, want ErrConflict", created, updated, lost)
	}
}

func TestFullBucketIsWaitedFor(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	stream := makeBucket(t, js, 1)
	config := stream.CachedInfo().Config
	config.MaxBytes = 4096
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	b := natskv.Open(js, "test")
	revision := create(t, b, "big", string(make([]byte, 3000)))
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.Create(short, "more", make([]byte, 3000), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("create in a full bucket: got error %v, want DeadlineExceeded", err)
	}
	// The last try may be on its way yet, and a delete would overtake it. What is written behind it is answered behind it.
	if _, err := b.Create(t.Context(), "big", nil, 0); !errors.Is(err, natskv.ErrConflict) {
		t.Errorf("create a key that is there: got error %v, want ErrConflict", err)
	}
	if err := b.Delete(t.Context(), "big", revision); err != nil {
		t.Fatal(err)
	}
	create(t, b, "more", string(make([]byte, 3000)))
}

// One of many writers wins each round, whatever the replicas' leader does meanwhile.
func TestOneOfManyWritersWins(t *testing.T) {
	clusters := map[string]func(*testing.T) (jetstream.JetStream, int){
		"one replica": func(t *testing.T) (jetstream.JetStream, int) { return natstest.Start(t).JetStream(t), 1 },
		"three replicas": func(t *testing.T) (jetstream.JetStream, int) {
			return natstest.Cluster(t, 3).JetStream(t), 3
		},
	}
	for name, start := range clusters {
		t.Run(name, func(t *testing.T) {
			js, replicas := start(t)
			makeBucket(t, js, replicas)
			b := natskv.Open(js, "test")
			for round := range 20 {
				var won atomic.Int32
				var writers sync.WaitGroup
				for writer := range 8 {
					writers.Go(func() {
						_, err := b.Create(t.Context(), fmt.Sprint("k", round), fmt.Append(nil, writer), 0)
						if err == nil {
							won.Add(1)
						} else if !errors.Is(err, natskv.ErrConflict) {
							t.Error(err)
						}
					})
				}
				writers.Wait()
				if got := won.Load(); got != 1 {
					t.Fatalf("round %d: %d writers won, want 1", round, got)
				}
			}
		})
	}
}

// Each writer has a key of its own, so that a conflict is one with itself: a write that was stored, whose answer was
// lost, and that was taken for another's.
func TestNoWriteIsMisjudgedWhenTheLeaderStops(t *testing.T) {
	const writers, each = 8, 100
	cluster := natstest.Cluster(t, 3)
	stream := makeBucket(t, cluster.JetStream(t), 3)
	var written atomic.Int64
	var writing sync.WaitGroup
	for writer := range writers {
		b := natskv.Open(cluster.JetStream(t), "test")
		key := fmt.Sprint("writer.", writer)
		writing.Go(func() {
			revision, err := b.Create(t.Context(), key, []byte("0"), time.Hour)
			for n := 1; n <= each && err == nil; n++ {
				written.Add(1)
				revision, err = b.Update(t.Context(), key, []byte(strconv.Itoa(n)), revision, time.Hour)
			}
			if err != nil {
				t.Error(err)
				return
			}
			entry, err := b.Get(t.Context(), key)
			if err != nil || string(entry.Value) != strconv.Itoa(each) || entry.Revision != revision {
				t.Errorf("%s is %q at %d, error %v; want %d at %d", key, entry.Value, entry.Revision, err, each, revision)
			}
		})
	}
	await(t, "a quarter is written", func() bool { return written.Load() > writers*each/4 })
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, server := range cluster {
		if info.Cluster.Leader == fmt.Sprintf("n%d", i+1) {
			server.Stop()
		}
	}
	writing.Wait()
}
