package actions_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tributary-dev/tributary/pkg/actions"
)

type actionFunc func(ctx context.Context) (actions.Outcome, error)

func (f actionFunc) Do(ctx context.Context, _ actions.Effect, _ actions.Request) (actions.Outcome, error) {
	return f(ctx)
}

func TestRegistryDoes(t *testing.T) {
	registry := actions.Registry{
		"status": actionFunc(func(context.Context) (actions.Outcome, error) { return actions.Outcome{Status: 204}, nil }),
		"panic":  actionFunc(func(context.Context) (actions.Outcome, error) { panic("nil map") }),
		"hang": actionFunc(func(ctx context.Context) (actions.Outcome, error) {
			<-ctx.Done()
			return actions.Outcome{}, ctx.Err()
		}),
	}
	do := func(kind string, timeout time.Duration) (actions.Outcome, error) {
		return registry.Do(t.Context(), actions.Effect{}, actions.Request{Type: kind, Timeout: timeout})
	}
	if outcome, err := do("status", time.Second); err != nil || outcome.Status != 204 {
		t.Errorf("outcome is %+v, %v", outcome, err)
	}
	if _, err := do("panic", time.Second); err == nil || err.Error() != "action panic panicked: nil map" {
		t.Errorf("error of a panic is %v", err)
	}
	if _, err := do("hang", time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error of an attempt beyond its timeout is %v", err)
	}
	if _, err := do("fax", time.Second); !errors.Is(err, actions.ErrUnknownType) {
		t.Errorf("error of an unknown type is %v", err)
	}
}

// Job records and dead letters hold this JSON for weeks, and releases read each other's.
func TestRequestKeepsItsJSON(t *testing.T) {
	request := actions.Request{
		Type: "webhook", Endpoint: "https://carrier.example:443", Method: "POST", URL: "https://carrier.example/hooks",
		Header: []actions.Header{{Name: "X-Region", Value: "eu"}}, Body: []byte("\x00\xFF<&>"), Timeout: 10 * time.Second,
		Secrets: []string{"env:CARRIER_SECRET"}, Permanent: []int{400, 410},
	}
	const want = `{"type":"webhook","endpoint":"https://carrier.example:443","method":"POST","url":"https://carrier.example/hooks",` +
		`"header":[{"name":"X-Region","value":"eu"}],"body":"AP88Jj4=","timeout":10000000000,"secrets":["env:CARRIER_SECRET"],"permanent":[400,410]}`
	got, err := json.Marshal(request)
	if err != nil || string(got) != want {
		t.Errorf("JSON is %s, %v", got, err)
	}
	var again actions.Request
	if err := json.Unmarshal(got, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(request, again); diff != "" {
		t.Error(diff)
	}
}
