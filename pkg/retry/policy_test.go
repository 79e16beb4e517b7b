package retry_test

import (
	"encoding/json"
	"errors"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tributary-dev/tributary/pkg/retry"
)

const longest = time.Duration(math.MaxInt64)

func TestDelayWithoutJitter(t *testing.T) {
	policy := func(s retry.Strategy, initial, most time.Duration) retry.Policy {
		return retry.Policy{MaxAttempts: 5, Strategy: s, Initial: initial, Max: most}
	}
	tests := map[string]struct {
		policy retry.Policy
		failed int
		floor  time.Duration
		want   time.Duration
	}{
		"exponential begins with the initial delay":        {policy(retry.Exponential, 100*time.Millisecond, 30*time.Second), 1, 0, 100 * time.Millisecond},
		"exponential doubles":                              {policy(retry.Exponential, 100*time.Millisecond, 30*time.Second), 4, 0, 800 * time.Millisecond},
		"exponential stops at the maximum":                 {policy(retry.Exponential, 100*time.Millisecond, 30*time.Second), 10, 0, 30 * time.Second},
		"exponential reaches a maximum that is a power":    {policy(retry.Exponential, time.Second, 8*time.Second), 4, 0, 8 * time.Second},
		"exponential does not overflow":                    {policy(retry.Exponential, time.Nanosecond, longest), 1_000_000, 0, longest},
		"exponential does not overflow just past 63 bits":  {policy(retry.Exponential, time.Nanosecond, longest), 64, 0, longest},
		"exponential uses all 63 bits":                     {policy(retry.Exponential, time.Nanosecond, longest), 63, 0, 1 << 62},
		"linear grows by the initial delay":                {policy(retry.Linear, 100*time.Millisecond, 30*time.Second), 3, 0, 300 * time.Millisecond},
		"linear stops at the maximum":                      {policy(retry.Linear, 7*time.Second, 30*time.Second), 5, 0, 30 * time.Second},
		"linear does not overflow":                         {policy(retry.Linear, time.Hour, longest), math.MaxInt, 0, longest},
		"fixed stays":                                      {policy(retry.Fixed, time.Second, 30*time.Second), 1_000_000, 0, time.Second},
		"fractions of a millisecond are kept":              {policy(retry.Exponential, 333*time.Nanosecond, time.Second), 2, 0, 666 * time.Nanosecond},
		"a floor lifts a shorter delay":                    {policy(retry.Fixed, time.Second, 30*time.Second), 1, 5 * time.Second, 5 * time.Second},
		"a floor may exceed the maximum":                   {policy(retry.Fixed, time.Second, 30*time.Second), 1, time.Hour, time.Hour},
		"a floor leaves a longer delay":                    {policy(retry.Fixed, 10*time.Second, 30*time.Second), 1, time.Second, 10 * time.Second},
		"a negative floor is none":                         {policy(retry.Fixed, time.Second, 30*time.Second), 1, -time.Hour, time.Second},
		"before the first failure it is the initial delay": {policy(retry.Exponential, time.Second, 30*time.Second), 0, 0, time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := test.policy.Delay(test.failed, test.floor, nil); got != test.want {
				t.Errorf("Delay(%d, %s) = %s, want %s", test.failed, test.floor, got, test.want)
			}
		})
	}
}

func TestDelayJitter(t *testing.T) {
	tests := map[string]struct {
		jitter float64
		random float64
		want   time.Duration
	}{
		"the middle leaves the delay":          {0.25, 0.5, 4 * time.Second},
		"the lowest number shortens it":        {0.25, 0, 3 * time.Second},
		"a high number lengthens it":           {0.25, 0.75, 4500 * time.Millisecond},
		"the maximum holds behind the jitter":  {1, 0.999, 5 * time.Second},
		"a whole jitter may leave nothing":     {1, 0, 0},
		"no jitter ignores the random numbers": {0, 0, 4 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := retry.Policy{MaxAttempts: 5, Strategy: retry.Exponential, Initial: time.Second, Max: 5 * time.Second, Jitter: test.jitter}
			if got := p.Delay(3, 0, func() float64 { return test.random }); got != test.want {
				t.Errorf("Delay = %s, want %s", got, test.want)
			}
		})
	}
}

func TestDelayStaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		initial := time.Duration(rapid.Int64Range(1, math.MaxInt64).Draw(t, "initial"))
		p := retry.Policy{
			MaxAttempts: 1,
			Strategy:    rapid.SampledFrom(retry.Strategies()).Draw(t, "strategy"),
			Initial:     initial,
			Max:         time.Duration(rapid.Int64Range(int64(initial), math.MaxInt64).Draw(t, "max")),
			Jitter:      rapid.Float64Range(0, 1).Draw(t, "jitter"),
		}
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		random := rapid.Float64Range(0, math.Nextafter(1, 0)).Draw(t, "random")
		failed := rapid.IntRange(0, math.MaxInt).Draw(t, "failed")
		got := p.Delay(failed, 0, func() float64 { return random })
		if got < 0 || got > p.Max {
			t.Fatalf("Delay(%d) = %d is outside of [0, %d]", failed, got, p.Max)
		}
	})
}

func TestDelayOfCenturiesKeepsItsSign(t *testing.T) {
	p := retry.Policy{MaxAttempts: 1, Strategy: retry.Fixed, Initial: longest, Max: longest, Jitter: 1}
	if got := p.Delay(1, 0, func() float64 { return 0 }); got != 0 {
		t.Errorf("the shortest delay is %s, want 0", got)
	}
	if got := p.Delay(1, 0, func() float64 { return math.Nextafter(1, 0) }); got != longest {
		t.Errorf("the longest delay is %s, want %s", got, longest)
	}
}

func TestExhausted(t *testing.T) {
	tests := map[string]struct {
		attempts, executions int
		want                 bool
	}{
		"one attempt is over after one":     {1, 1, true},
		"one attempt is not over before":    {1, 0, false},
		"five attempts go on after four":    {5, 4, false},
		"five attempts are over after five": {5, 5, true},
		"and stay over":                     {5, 6, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := (retry.Policy{MaxAttempts: test.attempts}).Exhausted(test.executions); got != test.want {
				t.Errorf("Exhausted(%d) of %d = %t, want %t", test.executions, test.attempts, got, test.want)
			}
		})
	}
}

func TestValidateNamesTheKey(t *testing.T) {
	with := func(change func(*retry.Policy)) retry.Policy {
		p := retry.Default()
		change(&p)
		return p
	}
	tests := map[string]struct {
		policy retry.Policy
		key    string
		want   string
	}{
		"no attempt":         {with(func(p *retry.Policy) { p.MaxAttempts = 0 }), "max_attempts", "max_attempts must be at least 1, got 0"},
		"unknown strategy":   {with(func(p *retry.Policy) { p.Strategy = "often" }), "strategy", `strategy must be one of exponential, linear, fixed, got "often"`},
		"no delay":           {with(func(p *retry.Policy) { p.Initial = 0 }), "initial", "initial must be above 0, got 0s"},
		"max below initial":  {with(func(p *retry.Policy) { p.Max = time.Millisecond }), "max", "max must be at least initial (100ms), got 1ms"},
		"jitter above 1":     {with(func(p *retry.Policy) { p.Jitter = 1.5 }), "jitter", "jitter must be from 0 to 1, got 1.5"},
		"jitter below 0":     {with(func(p *retry.Policy) { p.Jitter = -0.1 }), "jitter", "jitter must be from 0 to 1, got -0.1"},
		"jitter of no value": {with(func(p *retry.Policy) { p.Jitter = math.NaN() }), "jitter", "jitter must be from 0 to 1, got NaN"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			err := test.policy.Validate()
			var key *retry.KeyError
			if !errors.As(err, &key) || key.Key != test.key || err.Error() != test.want {
				t.Errorf("Validate() = %v, want %s", err, test.want)
			}
		})
	}
	if err := retry.Default().Validate(); err != nil {
		t.Errorf("the default is invalid: %v", err)
	}
}

func TestPolicyJSONIsStable(t *testing.T) {
	const want = `{"max_attempts":5,"strategy":"exponential","initial":"100ms","max":"30s","jitter":0.25}`
	got, err := json.Marshal(retry.Default())
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("JSON of the default is\n%s, want\n%s", got, want)
	}
	var back retry.Policy
	if err := json.Unmarshal(got, &back); err != nil || back != retry.Default() {
		t.Errorf("Unmarshal gave %+v, %v", back, err)
	}
}

func TestPolicyJSONRefusesWhatIsInvalid(t *testing.T) {
	tests := map[string]string{
		"a number as duration": `{"max_attempts":5,"strategy":"fixed","initial":100,"max":"30s","jitter":0}`,
		"no unit":              `{"max_attempts":5,"strategy":"fixed","initial":"100","max":"30s","jitter":0}`,
		"no attempts":          `{"strategy":"fixed","initial":"1s","max":"30s","jitter":0}`,
		"a missing max":        `{"max_attempts":5,"strategy":"fixed","initial":"1s","jitter":0}`,
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			policy := retry.Default()
			if err := json.Unmarshal([]byte(data), &policy); err == nil {
				t.Errorf("%s was read as %+v", data, policy)
			}
			if policy != retry.Default() {
				t.Errorf("an error changed the policy to %+v", policy)
			}
		})
	}
}
