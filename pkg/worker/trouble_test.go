package worker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/pkg/worker"
	"github.com/tributary-dev/tributary/streams"
)

// Somebody unpins, resets and deletes the consumers while they are worked on.
func TestRepinsUnderLoadKeepOrderAndRepeatNothing(t *testing.T) {
	const partitions = 2
	r := newRig(t, partitions, hook)
	r.sink.answer = func(_ context.Context, c call) error {
		<-time.After(time.Millisecond) // some work
		if c.at.Commit%5 == 0 {
			return errors.New("no")
		}
		return nil
	}
	r.start("w1")
	r.start("w2")
	disturb := func(verb, body string) {
		for partition := range partitions {
			subject := jetstream.DefaultAPIPrefix + "CONSUMER." + verb + ".EVENTS.worker-" + events.PartitionName(partition)
			if _, err := r.js.Conn().Request(subject, []byte(body), patience); err != nil {
				t.Fatal(err)
			}
		}
	}
	for round := range 3 {
		for _, verb := range []string{"UNPIN", "RESET", "DELETE"} {
			seen := r.sink.count()
			r.insert(keys(300, 20)...)
			eventually(t, "effects are under way", func() bool { return r.sink.count() > seen+20 })
			body := ""
			if verb == "UNPIN" {
				body = `{"group":"w"}`
			}
			disturb(verb, body)
			eventually(t, fmt.Sprintf("round %d: effects go on after %s", round, verb), func() bool { return r.sink.count() >= seen+300 })
		}
	}
	r.settled()
	r.sink.once(t, r.published)
	r.sink.inOrder(t)
}

func TestClusterThatLosesItsLeadersLosesAndRepeatsNothing(t *testing.T) {
	r := newClusterRig(t, 2, hook)
	r.sink.answer = func(context.Context, call) error {
		<-time.After(time.Millisecond) // some work
		return nil
	}
	r.start("w1")
	r.start("w2")
	stepDown := func(subject string) {
		eventually(t, "the leader steps down", func() bool { // there may be none at this moment
			_, err := r.js.Conn().Request(jetstream.DefaultAPIPrefix+subject, nil, 2*time.Second)
			return err == nil
		})
	}
	for _, subject := range []string{
		"CONSUMER.LEADER.STEPDOWN.EVENTS.worker-000", "CONSUMER.LEADER.STEPDOWN.EVENTS.worker-001",
		"STREAM.LEADER.STEPDOWN.KV_dedup", "STREAM.LEADER.STEPDOWN.EVENTS",
	} {
		seen := r.sink.count()
		r.insert(keys(200, 20)...)
		eventually(t, "effects are under way", func() bool { return r.sink.count() > seen+10 })
		stepDown(subject)
		eventually(t, "effects go on after "+subject, func() bool { return r.sink.count() >= seen+200 })
	}
	r.settled()
	r.sink.once(t, r.published)
	r.sink.inOrder(t)
}

// generations are rules of which the last is in force.
type generations []*observers.Set

func (g generations) Current() *observers.Set { return g[len(g)-1] }

func (g generations) At(generation string) (*observers.Set, bool) {
	for _, set := range g {
		if set.Generation() == generation {
			return set, true
		}
	}
	return nil, false
}

func TestEffectThatWasBegunKeepsItsGeneration(t *testing.T) {
	t.Parallel() // most of it is waiting
	newer := strings.Replace(hook, `url: "http://a.example/"`, `url: "http://b.example/"`, 1)
	r := newRig(t, 1, hook)
	r.sink.answer = func(_ context.Context, c call) error {
		if c.worker.Status().ID == "w1" {
			c.worker.kill()
		}
		return nil
	}
	r.insert("a")
	old := r.start("w1")
	<-old.ended
	r.start("w2", func(p *worker.Parts, _ *worker.Options) { p.Rules = generations{r.rules, parse(t, newer)} })
	r.settled()
	r.insert("a")
	eventually(t, "the next event is done", func() bool { return r.sink.done() == 3 })
	calls := r.sink.seen()
	for i, want := range []string{"http://a.example/", "http://a.example/", "http://b.example/"} {
		if got := calls[i].request.URL; got != want {
			t.Errorf("attempt %d went to %s, want %s", i+1, got, want)
		}
	}
}

// dyingQueue is a queue whose worker dies after the job is stored.
type dyingQueue struct {
	*jobs.Store
	die func()
}

func (q dyingQueue) Enqueue(ctx context.Context, job jobs.New) error {
	err := q.Store.Enqueue(ctx, job)
	q.die()
	return errors.Join(err, errors.New("dead"))
}

func TestEffectThatIsAJobAlreadyIsNotBegunAgain(t *testing.T) {
	t.Parallel() // most of it is waiting
	r := newRig(t, 1, hook)
	r.sink.answer = func(context.Context, call) error { return errors.New("busy") }
	r.insert("a")
	var first *running
	ready := make(chan struct{})
	first = r.start("w1", func(p *worker.Parts, _ *worker.Options) {
		p.Jobs = dyingQueue{p.Jobs.(*jobs.Store), func() {
			<-ready
			first.kill()
		}}
	})
	close(ready)
	<-first.ended
	r.start("w2")
	r.settled()
	r.sink.once(t, 1)
	if job := r.job(effectKey(1, "o", "a")); len(job.Attempts) != 1 {
		t.Errorf("job is %+v", job)
	}
}

func TestEffectsWithoutKVWaitOrRun(t *testing.T) {
	cases := map[string]struct {
		onError worker.OnError
		want    int
	}{
		"wait": {worker.Wait, 0},
		"run":  {worker.Run, 1},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1, hook)
			if err := r.js.DeleteStream(t.Context(), "KV_dedup"); err != nil {
				t.Fatal(err)
			}
			r.insert("a")
			w := r.start("w1", func(_ *worker.Parts, o *worker.Options) { o.OnError = c.onError })
			eventually(t, "the event is taken in", func() bool {
				return len(w.Status().Partitions) == 1 && (r.sink.count() > 0 || w.repins() > 0)
			})
			if got := r.sink.count(); got != c.want {
				t.Errorf("%d effects began without KV, want %d", got, c.want)
			}
			if _, err := streams.Apply(t.Context(), r.js, streams.Options{Partitions: 1}); err != nil {
				t.Fatal(err)
			}
			r.settled()
			r.sink.once(t, 1)
		})
	}
}

func TestEventsLargerThanTheBoundPass(t *testing.T) {
	r := newRig(t, 1, hook)
	w := r.start("w1", func(_ *worker.Parts, o *worker.Options) { o.PartitionBytes = 200 })
	r.insert(keys(50, 5)...)
	r.settled()
	r.sink.once(t, 50)
	r.sink.inOrder(t)
	if n := w.repins(); n != 0 {
		t.Errorf("the partition was held anew %d times", n)
	}
}
