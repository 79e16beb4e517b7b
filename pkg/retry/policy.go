package retry

import (
	"encoding/json"
	"fmt"
	"time"
)

// Strategy says how delays grow from one failed attempt to the next.
type Strategy string

// The strategies, with the delay after failed attempt n.
const (
	Exponential Strategy = "exponential" // min(initial·2^(n-1), max)
	Linear      Strategy = "linear"      // min(initial·n, max)
	Fixed       Strategy = "fixed"       // min(initial, max)
)

// Strategies lists every strategy.
func Strategies() []Strategy { return []Strategy{Exponential, Linear, Fixed} }

// Policy says how often, and after which delays, a failure is tried again. Its JSON is stable: it lies in job records.
// Policies are comparable.
type Policy struct {
	MaxAttempts int           // executions that ended, the first included; at least 1
	Strategy    Strategy      // how Initial grows
	Initial     time.Duration // the delay after the first failure; above 0
	Max         time.Duration // the longest delay, jitter included; at least Initial
	Jitter      float64       // a delay is varied by up to this fraction, either way; from 0 to 1
}

// Default is the policy of whoever names none.
func Default() Policy {
	return Policy{MaxAttempts: 5, Strategy: Exponential, Initial: 100 * time.Millisecond, Max: 30 * time.Second, Jitter: 0.25}
}

// KeyError says which setting of a policy is invalid, and why.
type KeyError struct {
	Key     string // max_attempts, strategy, initial, max or jitter
	Problem string
}

func (e *KeyError) Error() string { return e.Key + " " + e.Problem }

// Validate errors with a *KeyError for the first setting that is invalid.
func (p Policy) Validate() error {
	invalid := func(key, format string, args ...any) error {
		return &KeyError{Key: key, Problem: fmt.Sprintf(format, args...)}
	}
	switch {
	case p.MaxAttempts < 1:
		return invalid("max_attempts", "must be at least 1, got %d", p.MaxAttempts)
	case !p.Strategy.valid():
		return invalid("strategy", "must be one of exponential, linear, fixed, got %q", string(p.Strategy))
	case p.Initial <= 0:
		return invalid("initial", "must be above 0, got %s", p.Initial)
	case p.Max < p.Initial:
		return invalid("max", "must be at least initial (%s), got %s", p.Initial, p.Max)
	case !(p.Jitter >= 0 && p.Jitter <= 1): // so that NaN is refused
		return invalid("jitter", "must be from 0 to 1, got %v", p.Jitter)
	default:
		return nil
	}
}

func (s Strategy) valid() bool {
	switch s {
	case Exponential, Linear, Fixed:
		return true
	default:
		return false
	}
}

// Exhausted tells whether no execution is left after this many that ended.
func (p Policy) Exhausted(executions int) bool { return executions >= p.MaxAttempts }

// Delay gives the delay after failed attempt number failed, which counts from 1. It is varied by the jitter, for which
// random gives a number in [0, 1), and stays within [0, Max] but for floor, which a Retry-After asks for: a delay is
// never shorter than that. Without random there is no jitter.
func (p Policy) Delay(failed int, floor time.Duration, random func() float64) time.Duration {
	delay := p.base(max(failed, 1))
	if random != nil && p.Jitter > 0 {
		delay = p.vary(delay, float64(delay)*p.Jitter*(2*random()-1))
	}
	return max(delay, floor, 0)
}

// vary adds by to delay, within [0, Max]. It compares before it adds: neither the sum nor the conversion overflows.
func (p Policy) vary(delay time.Duration, by float64) time.Duration {
	switch {
	case by >= float64(p.Max-delay):
		return p.Max
	case by <= -float64(delay):
		return 0
	default:
		return min(max(delay+time.Duration(by), 0), p.Max)
	}
}

// base compares before it multiplies, so that no attempt number overflows.
func (p Policy) base(failed int) time.Duration {
	switch p.Strategy {
	case Linear:
		if p.Initial > 0 && time.Duration(failed) > p.Max/p.Initial {
			return p.Max
		}
		return p.Initial * time.Duration(failed)
	case Fixed:
		return min(p.Initial, p.Max)
	case Exponential:
		if failed-1 > 62 || p.Initial > p.Max>>(failed-1) {
			return p.Max
		}
		return p.Initial << (failed - 1)
	default:
		panic(fmt.Sprintf("retry: strategy %q was not validated", string(p.Strategy)))
	}
}

// wirePolicy is the JSON of a policy. Durations are Go's texts, such as 100ms or 1m30s.
type wirePolicy struct {
	MaxAttempts int      `json:"max_attempts"`
	Strategy    Strategy `json:"strategy"`
	Initial     string   `json:"initial"`
	Max         string   `json:"max"`
	Jitter      float64  `json:"jitter"`
}

// MarshalJSON writes {"max_attempts":5,"strategy":"exponential","initial":"100ms","max":"30s","jitter":0.25}.
func (p Policy) MarshalJSON() ([]byte, error) {
	return json.Marshal(wirePolicy{p.MaxAttempts, p.Strategy, p.Initial.String(), p.Max.String(), p.Jitter})
}

// UnmarshalJSON reads what MarshalJSON writes; a policy that is not valid is an error.
func (p *Policy) UnmarshalJSON(data []byte) error {
	var wire wirePolicy
	if err := json.Unmarshal(data, &wire); err != nil {
		return fmt.Errorf("decode retry policy: %w", err)
	}
	read := Policy{MaxAttempts: wire.MaxAttempts, Strategy: wire.Strategy, Jitter: wire.Jitter}
	var err error
	if read.Initial, err = time.ParseDuration(wire.Initial); err != nil {
		return fmt.Errorf("decode retry policy: initial: %w", err)
	}
	if read.Max, err = time.ParseDuration(wire.Max); err != nil {
		return fmt.Errorf("decode retry policy: max: %w", err)
	}
	if err := read.Validate(); err != nil {
		return fmt.Errorf("decode retry policy: %w", err)
	}
	*p = read
	return nil
}
