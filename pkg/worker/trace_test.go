package worker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/retry"
	"github.com/tributary-dev/tributary/pkg/trace"
	"github.com/tributary-dev/tributary/pkg/worker"
)

// notes keeps what it is told.
type notes struct {
	mu    sync.Mutex
	lines []string // guarded by mu
}

func (n *notes) Note(_ int, r *trace.Record) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := r.Evaluation; e != nil {
		n.lines = append(n.lines, fmt.Sprint("matched ", e.Matched, " false ", e.False, " failed ", len(e.Failed), " more ", e.More))
	}
	if x := r.Effect; x != nil {
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
		n.lines = append(n.lines, text)
	}
}

func (n *notes) all() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.lines, "\n")
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
	told := new(notes)
	r.insert("1")
	w := r.start("w1", func(p *worker.Parts, _ *worker.Options) {
		p.Traces = told
		p.Actions = actions.Registry{"webhook": answering{"fails": errors.New("503"), "refused": retry.Permanent(errors.New("410"))}}
	})
	r.settled()
	w.stop()
	got := told.all()
	for _, want := range []string{
		"matched [tries] false [never] failed 1 more 0", "broken/ dead condition", "tries/fails job attempt 1 299 503 again",
		"tries/good done attempt 1 299 ", "tries/later job", "tries/refused dead permanent attempt 1 299 410",
	} {
		if !strings.Contains(got+"\n", want+"\n") {
			t.Errorf("it is not on record that %q:\n%s", want, got)
		}
	}
	if n := strings.Count(got, "\n") + 1; n != 6 {
		t.Errorf("there are %d records, want 6:\n%s", n, got)
	}
}
