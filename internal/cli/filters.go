package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
)

// since is a time, given as itself or by how long ago it was.
type since struct{ time.Time }

// UnmarshalText reads 90s, 15m, 36h, 7d, 2026-11-23 or a time of RFC 3339.
func (s *since) UnmarshalText(text []byte) error {
	given := string(text)
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, given); err == nil {
			s.Time = t
			return nil
		}
	}
	ago, err := time.ParseDuration(given)
	if days, ok := strings.CutSuffix(given, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		ago = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || ago < 0 {
		return fmt.Errorf("%q is neither how long ago (15m, 36h, 7d) nor a time (2026-11-23, 2026-11-23T08:45:00Z)", given)
	}
	s.Time = time.Now().Add(-ago)
	return nil
}

// operation is one of events.Ops.
type operation events.Op

// UnmarshalText reads an operation.
func (o *operation) UnmarshalText(text []byte) error {
	if *o = operation(text); !events.Op(*o).Valid() {
		return fmt.Errorf("%q is none of %s", text, list(events.Ops()))
	}
	return nil
}

// reason is one of deadletter.Reasons.
type reason deadletter.Reason

// UnmarshalText reads a reason.
func (r *reason) UnmarshalText(text []byte) error {
	for _, known := range deadletter.Reasons() {
		if string(known) == string(text) {
			*r = reason(known)
			return nil
		}
	}
	return fmt.Errorf("%q is none of %s", text, list(deadletter.Reasons()))
}

// state is one of jobs.States.
type state jobs.State

// UnmarshalText reads a state.
func (s *state) UnmarshalText(text []byte) error {
	for _, known := range jobs.States() {
		if string(known) == string(text) {
			*s = state(known)
			return nil
		}
	}
	return fmt.Errorf("%q is none of %s", text, list(jobs.States()))
}

func list[T ~string](values []T) string {
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = string(v)
	}
	return strings.Join(texts, ", ")
}

// most is a number of things to list.
type most int

// UnmarshalText reads a number of at least 1.
func (m *most) UnmarshalText(text []byte) error {
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 1 {
		return fmt.Errorf("%q is no number of at least 1", text)
	}
	*m = most(n)
	return nil
}

// cut takes from list, of which one more than m was asked for, what is more, and says whether there was.
func cut[T any](m most, list []T) ([]T, bool) {
	if len(list) <= int(m) {
		return list, false
	}
	return list[:m], true
}
