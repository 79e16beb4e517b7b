package worker_test

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/worker"
)

// nothing is an action that does nothing.
type nothing struct{ done chan struct{} }

func (n nothing) Do(context.Context, actions.Effect, actions.Request) (actions.Outcome, error) {
	n.done <- struct{}{}
	return actions.Outcome{}, nil
}

// BenchmarkEffects takes events through the whole pipeline to an action that does nothing: three writes to KV for each.
func BenchmarkEffects(b *testing.B) {
	r := newRig(b, 16, hook)
	r.insert(keys(b.N, 1000)...)
	done := make(chan struct{}, b.N)
	b.ResetTimer()
	r.start("w1", func(p *worker.Parts, _ *worker.Options) { p.Actions = actions.Registry{"webhook": nothing{done}} })
	for range b.N {
		<-done
	}
	r.settled()
}

// BenchmarkUnmatched takes events that no observer wants.
func BenchmarkUnmatched(b *testing.B) {
	r := newRig(b, 16, `observers: []`)
	r.insert(keys(b.N, 1000)...)
	b.ResetTimer()
	r.start("w1")
	r.settled()
}

// BenchmarkBare pulls and acknowledges the same events, and does nothing else.
func BenchmarkBare(b *testing.B) {
	r := newRig(b, 16, `observers: []`)
	r.insert(keys(b.N, 1000)...)
	b.ResetTimer()
	done := make(chan struct{}, b.N)
	for partition := range 16 {
		consumer, err := r.js.CreateConsumer(b.Context(), events.StreamEvents, jetstream.ConsumerConfig{
			Durable: "worker-" + events.PartitionName(partition), FilterSubject: events.EventsOfPartition(partition),
			AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 2048,
		})
		if err != nil {
			b.Fatal(err)
		}
		consuming, err := consumer.Consume(func(msg jetstream.Msg) {
			if err := msg.Ack(); err != nil {
				b.Error(err)
			}
			done <- struct{}{}
		})
		if err != nil {
			b.Fatal(err)
		}
		defer consuming.Stop()
	}
	for range b.N {
		<-done
	}
	r.settled()
}
