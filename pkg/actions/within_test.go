package actions_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions"
)

// attempt gives what see saw of an attempt's context, and the context itself, which has ended since.
func attempt(ctx context.Context, timeout time.Duration, see func(context.Context)) context.Context {
	var seen context.Context
	registry := actions.Registry{"see": actionFunc(func(ctx context.Context) (actions.Outcome, error) {
		seen = ctx
		see(ctx)
		return actions.Outcome{}, nil
	})}
	_, _ = registry.Do(ctx, actions.Effect{}, actions.Request{Type: "see", Timeout: timeout})
	return seen
}

func TestAnAttemptEndsWithWhatItIsWithin(t *testing.T) {
	stopped := errors.New("stopped")
	attempt(t.Context(), time.Hour, func(ctx context.Context) {
		if ctx.Err() != nil {
			t.Errorf("a context with time left has ended: %v", ctx.Err())
		}
	})
	parent, stop := context.WithCancelCause(t.Context())
	attempt(parent, time.Hour, func(ctx context.Context) {
		child, cancel := context.WithCancel(ctx)
		defer cancel()
		stop(stopped)
		<-child.Done()
		if context.Cause(ctx) != stopped || context.Cause(child) != stopped {
			t.Errorf("causes are %v and %v, want the parent's", context.Cause(ctx), context.Cause(child))
		}
	})
	attempt(parent, time.Hour, func(ctx context.Context) {
		if context.Cause(ctx) != stopped {
			t.Errorf("of a parent that has ended the cause is %v", context.Cause(ctx))
		}
	})
	for name, look := range map[string]func(context.Context){
		"nobody has waited for": func(context.Context) {},
		"somebody waits for":    func(ctx context.Context) { ctx.Done() },
	} {
		if ctx := attempt(t.Context(), time.Hour, look); !errors.Is(ctx.Err(), context.Canceled) {
			t.Errorf("after the attempt a context that %s says %v", name, ctx.Err())
		}
	}
}

func TestAnAttemptKnowsItsDeadline(t *testing.T) {
	near, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	sooner, _ := near.Deadline()
	for timeout, parents := range map[time.Duration]bool{time.Minute: false, 2 * time.Hour: true} {
		attempt(near, timeout, func(ctx context.Context) {
			if at, ok := ctx.Deadline(); !ok || at.Equal(sooner) != parents || at.After(sooner) {
				t.Errorf("deadline of %s within an hour is %v, %t", timeout, at, ok)
			}
		})
	}
}

func TestAnAttemptThatWaitsForNobodyCostsOneContext(t *testing.T) {
	registry := actions.Registry{"x": actionFunc(func(context.Context) (actions.Outcome, error) { return actions.Outcome{}, nil })}
	ctx, request := t.Context(), actions.Request{Type: "x", Timeout: time.Second}
	if n := testing.AllocsPerRun(100, func() { _, _ = registry.Do(ctx, actions.Effect{}, request) }); n > 1 {
		t.Errorf("it allocates %v times, want once", n)
	}
}
