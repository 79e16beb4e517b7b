package expr

import "strings"

// hidden stands for what an error quotes of an event.
const hidden = "…"

// conceal takes an event's values out of an error of CEL: errors lie in logs and traces, which hold no payloads. What
// the expression itself says may stay, such as the name of a field.
func conceal(text string, err error) error {
	message := err.Error()
	plain := message
	const noKey = "no such key: "
	if head, key, ok := strings.Cut(plain, noKey); ok && !strings.Contains(text, key) {
		plain = head + noKey + hidden
	}
	for _, quote := range []string{`"`, "`"} {
		from, to := strings.Index(plain, quote), strings.LastIndex(plain, quote)
		if from < to && !strings.Contains(text, plain[from+1:to]) {
			plain = plain[:from+1] + hidden + plain[to:]
		}
	}
	if plain == message {
		return err
	}
	return &concealedError{plain, err}
}

type concealedError struct {
	plain string
	err   error
}

func (e *concealedError) Error() string { return e.plain }
func (e *concealedError) Unwrap() error { return e.err }
