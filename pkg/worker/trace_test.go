package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/retry"
	"github.com/tributary-dev/tributary/pkg/trace"
	"github.com/tributary-dev/tributary/pkg/worker"
)

// recorder starts what records, and gives what it has on record of the only event once it has ended.
func (r *rig) recorder() (*trace.Recorder, func() []string) {
	r.t.Helper()
	recorder, err := trace.New(r.js, trace.Options{Kind: trace.Worker, By: "w1"})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(r.t.Context())
	var running sync.WaitGroup
	running.Go(func() { recorder.Run(ctx) })
	return recorder, func() []string {
		r.t.Helper()
		stop()
		running.Wait()
		stream, err := r.js.Stream(r.t.Context(), events.StreamEvents)
		if err != nil {
			r.t.Fatal(err)
		}
		msg, err := stream.GetMsg(r.t.Context(), 1)
		if err != nil {
			r.t.Fatal(err)
		}
		address, err := events.ParseAddress(msg.Subject)
		if err != nil {
			r.t.Fatal(err)
		}
		event, err := events.Parse(msg.Data)
		if err != nil {
			r.t.Fatal(err)
		}
		found, err := trace.Read(r.t.Context(), r.js, trace.Query{
			Event: address.EffectID(event), Partition: address.Partition, Sequence: msg.Sequence, Stored: msg.Time,
		})
		if err != nil {
			r.t.Fatal(err)
		}
		lines := make([]string, len(found.Records))
		for i, record := range found.Records {
			lines[i] = lineOf(record)
		}
		return lines
	}
}

func lineOf(r trace.Record) string {
	if e := r.Evaluation; e != nil {
		return fmt.Sprint("matched ", e.Matched, " false ", e.False, " failed ", len(e.Failed), " more ", e.More)
	}
	x := r.Effect
	text := fmt.Sprintf("%s/%s %s", x.Observer, x.Action, x.Outcome)
	if x.Reason != "" {
		text += " " + x.Reason
	}
	if x.Attempt != nil {
		text += fmt.Sprintf(" attempt %d %d %s", x.Attempt.Number, x.Attempt.Status, x.Attempt.Error)
	}
	if !x.Next.IsZero() {
		text += " again"
	}
	return text
}

// answering answers by action.
type answering map[string]error

func (a answering) Do(_ context.Context, effect actions.Effect, _ actions.Request) (actions.Outcome, error) {
	return actions.Outcome{Status: 299}, a[effect.Action]
}

func TestWhatBecomesOfAnEventIsRecorded(t *testing.T) {
	r := newRig(t, 4, `
observers:
  - {name: broken, when: after.gone == 1, actions: [{name: x, type: webhook, url: "http://a.example/"}]}
  - {name: never, when: after.n == 7, actions: [{name: x, type: webhook, url: "http://a.example/"}]}
  - name: tries
    order: none
    actions:
      - {name: fails, type: webhook, url: "http://a.example/"}
      - {name: good, type: webhook, url: "http://a.example/"}
      - {name: later, type: webhook, url: "http://a.example/", async: true}
      - {name: refused, type: webhook, url: "http://a.example/"}
`)
	recorder, told := r.recorder()
	r.insert("1")
	w := r.start("w1", func(p *worker.Parts, _ *worker.Options) {
		p.Traces = recorder
		p.Actions = actions.Registry{"webhook": answering{"fails": errors.New("503"), "refused": retry.Permanent(errors.New("410"))}}
	})
	r.settled()
	w.stop()
	got := told()
	for _, want := range []string{
		"matched [tries] false [never] failed 1 more 0", "broken/ dead condition", "tries/fails job attempt 1 299 503 again",
		"tries/good done attempt 1 299 ", "tries/later job", "tries/refused dead permanent attempt 1 299 410",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("it is not on record that %q:\n%s", want, strings.Join(got, "\n"))
		}
	}
	if len(got) != 6 {
		t.Errorf("there are %d records, want 6:\n%s", len(got), strings.Join(got, "\n"))
	}
}
