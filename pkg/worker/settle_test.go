package worker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/retry"
)

func TestEveryEffectHappensOnceAndInOrder(t *testing.T) {
	r := newRig(t, 4, hook)
	r.start("w1")
	r.insert(keys(400, 7)...)
	eventually(t, "all effects are done", func() bool { return r.sink.done() == 400 })
	r.settled()
	r.sink.once(t, 400)
	r.sink.inOrder(t)
}

func TestWhatMayBeTriedAgainBecomesAJob(t *testing.T) {
	r := newRig(t, 1, hook)
	r.sink.answer = func(context.Context, call) error { return retry.After(errors.New("busy"), time.Hour) }
	r.start("w1")
	r.insert("a")
	r.settled()
	job := r.job(effectKey(1, "o", "a"))
	if job.State != jobs.Scheduled || len(job.Attempts) != 1 || job.Attempts[0].Error != "busy" || job.Executions != 1 {
		t.Errorf("job is %+v", job)
	}
	if until := time.Until(job.Due); until < 55*time.Minute {
		t.Errorf("job is due in %s, before its Retry-After", until)
	}
	r.sink.once(t, 1)
}

func TestAsyncActionIsAJobWithoutAnAttempt(t *testing.T) {
	r := newRig(t, 1, `
observers:
  - name: o
    actions: [{name: a, type: webhook, url: "http://a.example/", async: true}]
`)
	r.start("w1")
	r.insert("a")
	r.settled()
	if job := r.job(effectKey(1, "o", "a")); job.State != jobs.Ready || len(job.Attempts) != 0 {
		t.Errorf("job is %+v", job)
	}
	r.sink.once(t, 0)
}

func TestWhatFailsForGoodIsADeadLetter(t *testing.T) {
	cases := map[string]struct {
		rules  string
		answer error
		reason deadletter.Reason
		action string
	}{
		"a permanent error": {rules: hook, answer: retry.Permanent(errors.New("gone")), reason: deadletter.Permanent, action: "a"},
		"the only attempt that the policy allows": {
			rules: `
observers:
  - name: o
    retry: {max_attempts: 1}
    actions: [{name: a, type: webhook, url: "http://a.example/"}]
`, answer: errors.New("busy"), reason: deadletter.Exhausted, action: "a",
		},
		"a condition that fails": {
			rules: `
observers:
  - name: o
    when: after.missing == 1
    actions: [{name: a, type: webhook, url: "http://a.example/"}]
`, reason: deadletter.Condition,
		},
		"a body that can't be rendered": {
			rules: `
observers:
  - name: o
    actions: [{name: a, type: webhook, url: "http://a.example/", body: after.missing}]
`, reason: deadletter.Render, action: "a",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1, c.rules)
			r.sink.answer = func(context.Context, call) error { return c.answer }
			r.start("w1")
			r.insert("a")
			r.settled()
			letters := r.deadLetters()
			if len(letters) != 1 {
				t.Fatalf("%d dead letters, want 1", len(letters))
			}
			got := letters[0]
			if got.Reason != c.reason || got.Observer != "o" || got.Action != c.action || got.Error == "" || len(got.Event) == 0 {
				t.Errorf("dead letter is %+v", got)
			}
		})
	}
}

func TestDroppedFailureLeavesNothing(t *testing.T) {
	r := newRig(t, 1, `
observers:
  - name: o
    on_failure: log
    actions: [{name: a, type: webhook, url: "http://a.example/"}]
`)
	r.sink.answer = func(context.Context, call) error { return retry.Permanent(errors.New("gone")) }
	r.start("w1")
	r.insert("a")
	r.settled()
	if letters := r.deadLetters(); len(letters) != 0 {
		t.Errorf("%d dead letters, want none", len(letters))
	}
}

func TestUndecodableEventIsQuarantinedAndHoldsNothingUp(t *testing.T) {
	r := newRig(t, 1, hook)
	r.start("w1")
	r.insert("a")
	if _, err := r.js.Publish(t.Context(), "events.000.shop.public.orders.insert", []byte("{")); err != nil {
		t.Fatal(err)
	}
	r.insert("a")
	r.settled()
	r.sink.once(t, 2)
	letters := r.deadLetters()
	if len(letters) != 1 || letters[0].Reason != deadletter.Undecodable || string(letters[0].Raw) != "{" {
		t.Errorf("dead letters are %+v", letters)
	}
}

func TestApplicationsDuplicateIsSkipped(t *testing.T) {
	r := newRig(t, 1, hook)
	r.start("w1")
	for n := range uint64(2) {
		data := []byte(`{"specversion":"1.0","id":"1","source":"app","type":"t","partitionkey":"cart/1","sequence":"` +
			events.Sequence{Commit: n + 1}.String() + `","data":{}}`)
		if _, err := r.js.Publish(t.Context(), "events.000.web.cart.added.message", data); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the first is done", func() bool { return r.sink.done() == 1 })
	r.settled()
	r.sink.once(t, 1)
}
