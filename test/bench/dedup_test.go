//go:build bench

package bench

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/streams"
	"github.com/tributary-dev/tributary/test/harness"
)

// TestClaims takes effects through the ledgers of 16 partitions: each is claimed, settled and forgotten, every step stored
// before the next. The limit is one write for each: keys created with a TTL, 1,000 in flight.
func TestClaims(t *testing.T) {
	const n, partitions, callers = 400_000, 16, 512
	s := harness.New(t, harness.Options{Schema: table})
	js := s.JetStream()
	if _, err := streams.Apply(t.Context(), js, streams.Options{}); err != nil {
		t.Fatal(err)
	}
	limit := pipelinedCreates(t, s, n/4)

	store, err := dedupkv.New(natskv.Open(js, events.BucketDedup), dedupkv.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	defer writing.Wait()
	defer cancel()
	ledgers := make([]*dedupkv.Ledger, partitions)
	for i := range ledgers {
		ledgers[i] = store.Ledger(i, nil)
		writing.Go(func() { ledgers[i].Run(ctx) })
		if _, err := ledgers[i].Own(ctx, dedupkv.Owner{Worker: "bench", Pin: "p"}, nil); err != nil {
			t.Fatal(err)
		}
	}
	m := startMeter(s, "nats")
	latencies := make([][]time.Duration, callers)
	var wait sync.WaitGroup
	start := time.Now()
	for caller := range callers {
		wait.Go(func() {
			latencies[caller] = claimAll(t, ledgers[caller%partitions], caller, n/callers)
		})
	}
	wait.Wait()
	rate := float64(n) / time.Since(start).Seconds()
	figure{"claim, settle, forget", rate, limit, "one pipelined create each", m.stop(n)}.print()
	all := slices.Concat(latencies...)
	slices.Sort(all)
	fmt.Printf("%-44s p50 %v, p99 %v\n", fmt.Sprintf("a claim among %d", callers), all[len(all)/2].Round(10*time.Microsecond), all[len(all)*99/100].Round(10*time.Microsecond))
}

// claimAll takes n effects through, one after the other, and gives how long each claim took.
func claimAll(t *testing.T, l *dedupkv.Ledger, caller, n int) []time.Duration {
	took := make([]time.Duration, n)
	for i := range n {
		key := events.EffectKey(fmt.Sprint("shop-1-", caller, "-", i), "o", "a")
		start := time.Now()
		claim, err := l.Claim(t.Context(), key, "gen")
		took[i] = time.Since(start)
		if err == nil {
			err = l.Settle(t.Context(), key, claim, dedupkv.Done)
		}
		if err != nil {
			t.Error(err)
			return took
		}
		l.Forget(dedupkv.IDOf(key))
	}
	return took
}

// pipelinedCreates creates keys with a TTL, 1,000 in flight.
func pipelinedCreates(t *testing.T, s *harness.System, n int) float64 {
	t.Helper()
	js, err := jetstream.New(s.NATS(), jetstream.WithPublishAsyncMaxPending(1000))
	if err != nil {
		t.Fatal(err)
	}
	header := nats.Header{jetstream.ExpectedLastSubjSeqHeader: {"0"}, jetstream.MsgTTLHeader: {"300"}}
	value := []byte(`{"v":1,"begun":1,"worker":"worker-0123456789","pin":"0123456789","generation":"0123456789abcdef"}`)
	start := time.Now()
	for i := range n {
		msg := &nats.Msg{Subject: "$KV." + events.BucketDedup + "." + events.KVKey(fmt.Sprint("key", i)), Header: header, Data: value}
		if _, err := js.PublishMsgAsync(msg); err != nil {
			t.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	return float64(n) / time.Since(start).Seconds()
}
