package jobs

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
)

// recorder notes what was sent.
type recorder struct {
	fails int

	mu   sync.Mutex
	sent []string // guarded by mu
}

func (r *recorder) Do(_ context.Context, _ actions.Effect, request actions.Request) (actions.Outcome, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = append(r.sent, string(request.Body))
	if len(r.sent) <= r.fails {
		return actions.Outcome{}, errRefused
	}
	return actions.Outcome{Status: 200}, nil
}

func TestPendingJobs(t *testing.T) {
	busy := errors.New("busy")
	tests := map[string]struct {
		answers []any // of each resolving: the body, or an error
		fails   int
		sent    []string
		state   State
		reason  deadletter.Reason
	}{
		"what was resolved is sent, again and again the same": {[]any{"1", "2", "3"}, 2, []string{"1", "1", "1"}, Done, ""},
		"a lookup that fails is an attempt that failed":       {[]any{busy, busy, "3"}, 0, []string{"3"}, Done, ""},
		"one that fails too often":                            {[]any{busy, busy, busy}, 0, nil, Dead, deadletter.Exhausted},
		"a condition that is false":                           {[]any{busy, actions.ErrNotDue}, 0, nil, Done, ""},
		"a condition that fails":                              {[]any{&actions.RenderError{Condition: true, Err: busy}}, 0, nil, Dead, deadletter.Condition},
		"a body that fails":                                   {[]any{&actions.RenderError{Err: busy}}, 0, nil, Dead, deadletter.Render},
		"a body larger than a message":                        {[]any{string(make([]byte, 1<<20))}, 0, nil, Dead, deadletter.Render},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			sink := &recorder{fails: test.fails}
			resolved := 0
			w.start(t, actions.Registry{"test": sink}, func(o *Options) {
				o.Resolve = func(_ context.Context, request actions.Request, subject string, event []byte) (actions.Request, error) {
					if request.Type != actions.Pending || subject != "events.000.shop.public.orders.update" || len(event) == 0 {
						t.Errorf("resolves %+v of %s %s", request, subject, event)
					}
					answer := test.answers[resolved]
					resolved++
					if err, ok := answer.(error); ok {
						return actions.Request{}, err
					}
					return actions.Request{Type: "test", Timeout: request.Timeout, Body: []byte(answer.(string))}, nil
				}
			})
			j := job(1, func(n *New) {
				n.Request.Type, n.Subject = actions.Pending, "events.000.shop.public.orders.update"
			})
			w.enqueue(t, j)
			record := w.await(t, j, in(test.state))
			if !slices.Equal(sink.sent, test.sent) {
				t.Errorf("sent %q, want %q", sink.sent, test.sent)
			}
			if test.reason != "" && record.Verdict.Reason != test.reason {
				t.Errorf("it died of %s", record.Verdict.Reason)
			}
			w.awaitEmpty(t)
		})
	}
}
