package worker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/pkg/retry"
	"github.com/tributary-dev/tributary/pkg/worker"
)

// asking has a lookup, and beside it an observer without one. Their bodies are events, which the sink reads.
const asking = `
observers:
  - name: o
    lookup: [{name: customer, type: http, url: "http://crm.example/${after.id}"}]
    when: lookup.customer != 0
    actions:
      - {name: a, type: webhook, url: "http://a.example/${lookup.customer}", body: event}
  - name: plain
    actions:
      - {name: a, type: webhook, url: "http://b.example/", body: event}
`

// oracle answers lookups by their URL's last segment.
type oracle func(ctx context.Context, id string) ([]byte, error)

func (o oracle) Fetch(ctx context.Context, q observers.Lookup) ([]byte, error) {
	return o(ctx, strings.TrimPrefix(q.URL, "http://crm.example/"))
}

func with(o oracle) func(*worker.Parts, *worker.Options) {
	return func(p *worker.Parts, _ *worker.Options) { p.Lookups = o }
}

// urls gives where the attempts of an observer went, in turn.
func (s *sink) urls(observer string) []string {
	var list []string
	for _, c := range s.seen() {
		if c.effect.Observer == observer {
			list = append(list, c.request.URL)
		}
	}
	return list
}

func TestLookupsFeedConditionAndRequest(t *testing.T) {
	r := newRig(t, 1, asking)
	r.start("w1", with(func(_ context.Context, id string) ([]byte, error) {
		if id == "b" {
			return []byte("0"), nil
		}
		return fmt.Appendf(nil, "%q", "vip-"+id), nil
	}))
	r.insert("a", "b", "c")
	r.settled()
	if got := strings.Join(r.sink.urls("o"), " "); !strings.Contains(got, "a.example/vip-a") || !strings.Contains(got, "a.example/vip-c") || len(r.sink.urls("o")) != 2 {
		t.Errorf("sent to %s", got)
	}
	if letters := r.deadLetters(); len(letters) != 0 {
		t.Errorf("dead letters %+v", letters)
	}
	eventually(t, "no sealed request is left", func() bool { return len(sealedOf(t, r)) == 0 })
}

func sealedOf(t *testing.T, r *rig) []string {
	t.Helper()
	var list []string
	err := natskv.Open(r.js, events.BucketDedup).Each(t.Context(), func(key string, _ natskv.Entry) error {
		if strings.HasPrefix(key, "sealed_") {
			list = append(list, key)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestSlowLookupDelaysItsLaneAlone(t *testing.T) {
	r := newRig(t, 1, asking)
	hold := make(chan struct{})
	r.start("w1", with(func(ctx context.Context, id string) ([]byte, error) {
		if id == "slow" {
			select {
			case <-hold:
			case <-ctx.Done():
			}
		}
		return []byte("1"), nil
	}))
	r.insert("slow", "slow", "other")
	eventually(t, "all that need not wait are done", func() bool { return r.sink.done() == 4 })
	if n := len(r.sink.urls("o")); n != 1 {
		t.Errorf("%d effects of the observer with lookups are done, want the other key's", n)
	}
	close(hold)
	r.settled()
	r.sink.once(t, 6)
	r.sink.inOrder(t)
}

func TestFailedLookups(t *testing.T) {
	busy := errors.New("busy")
	tests := map[string]struct {
		err    error
		reason deadletter.Reason // empty for a job
	}{
		"for now is an attempt that failed, and a job": {retry.After(busy, 0), ""},
		"for good is a dead letter":                    {retry.Permanent(busy), deadletter.Condition},
		"with nothing found is judged":                 {observers.ErrNoAnswer, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1, asking)
			r.start("w1", with(func(context.Context, string) ([]byte, error) { return nil, test.err }))
			r.insert("a")
			r.settled()
			letters := r.deadLetters()
			switch {
			case errors.Is(test.err, observers.ErrNoAnswer): // null is not 0, and no segment
				if len(letters) != 1 || letters[0].Reason != deadletter.Render {
					t.Errorf("dead letters %+v", letters)
				}
			case test.reason != "":
				if len(letters) != 1 || letters[0].Reason != test.reason || letters[0].Request == nil || letters[0].Request.Type != actions.Pending {
					t.Errorf("dead letters %+v", letters)
				}
			default:
				job := r.job(effectKey(1, "o", "a"))
				if job.Request.Type != actions.Pending || len(job.Attempts) != 1 || job.State != jobs.Scheduled && job.State != jobs.Ready || !strings.Contains(job.Attempts[0].Error, "busy") {
					t.Errorf("the job is %+v", job)
				}
			}
			if n := len(r.sink.urls("o")); n != 0 {
				t.Errorf("%d requests were sent", n)
			}
		})
	}
}

// TestWhoTakesOverSendsTheSameBytes lets a worker die after it has sent, and the answer change before the next one begins.
func TestWhoTakesOverSendsTheSameBytes(t *testing.T) {
	r := newRig(t, 1, asking)
	var first sync.Once
	sent := make(chan struct{})
	r.sink.answer = func(ctx context.Context, c call) error {
		if c.effect.Observer == "o" && c.worker.conn.IsConnected() {
			first.Do(func() {
				close(sent)
				<-ctx.Done()
			})
		}
		return nil
	}
	one := r.start("w1", with(func(context.Context, string) ([]byte, error) { return []byte("1"), nil }))
	r.insert("a")
	<-sent
	one.kill()
	r.start("w2", with(func(context.Context, string) ([]byte, error) { return []byte("2"), nil }))
	r.settled()
	got := r.sink.urls("o")
	for _, url := range got {
		if url != "http://a.example/1" {
			t.Errorf("sent to %s under the same key", url)
		}
	}
	if len(got) < 2 {
		t.Errorf("%d attempts, want the second worker's too", len(got))
	}
}
