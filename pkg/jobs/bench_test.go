package jobs

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/events"
)

const benchWriters = 16

// each calls do for 0 to n-1 from several goroutines.
func each(b *testing.B, do func(i int) error) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range benchWriters {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < b.N; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkJobs is the whole road: record, ticket, claim, an action that does nothing, end.
func BenchmarkJobs(b *testing.B) {
	w := newWorld(b)
	w.start(b, actions.Registry{"test": doNothing{}}, func(o *Options) { o.Concurrency = 64; o.AckWait = 10 * time.Second })
	run := strconv.FormatInt(time.Now().UnixNano(), 36)
	b.ResetTimer()
	each(b, func(i int) error {
		return w.store.Enqueue(context.Background(), job(i, func(n *New) { n.Effect.Key += run }))
	})
	w.awaitEmpty(b)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}

type doNothing struct{}

func (doNothing) Do(context.Context, actions.Effect, actions.Request) (actions.Outcome, error) {
	return actions.Outcome{Status: 200}, nil
}

// BenchmarkBareWorkQueue is what JetStream does without records: publish, deliver, acknowledge.
func BenchmarkBareWorkQueue(b *testing.B) {
	w := newWorld(b)
	consumer, err := w.server.JetStream(b).CreateOrUpdateConsumer(context.Background(), events.StreamJobs, jetstream.ConsumerConfig{
		Durable: ConsumerName, FilterSubject: readyPrefix + ">", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 10_000,
	})
	if err != nil {
		b.Fatal(err)
	}
	consuming, err := consumer.Consume(func(msg jetstream.Msg) {
		if err := msg.Ack(); err != nil {
			b.Error(err)
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	defer consuming.Stop()
	body := make([]byte, 300)
	b.ResetTimer()
	each(b, func(int) error {
		_, err := w.js.Publish(context.Background(), readyPrefix+DefaultQueue, body)
		return err
	})
	w.awaitEmpty(b)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
}

// BenchmarkLane drains one lane in which 10,000 jobs wait.
func BenchmarkLane(b *testing.B) {
	const waiting = 10_000
	for b.Loop() {
		w := newWorld(b)
		began := time.Now()
		for i := range waiting {
			w.enqueue(b, job(i, within("42", Park)))
		}
		b.ReportMetric(waiting/time.Since(began).Seconds(), "queued/s")
		began = time.Now()
		w.start(b, actions.Registry{"test": doNothing{}}, func(o *Options) { o.AckWait = 10 * time.Second })
		w.await(b, job(waiting-1), in(Done))
		b.ReportMetric(waiting/time.Since(began).Seconds(), "jobs/s")
	}
}
