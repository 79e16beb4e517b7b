package stall_test

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/stall"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// judge keeps what a Watch says of its test.
type judge struct {
	testing.TB
	failed string
}

func (j *judge) Errorf(format string, args ...any) { j.failed = fmt.Sprintf(format, args...) }

func TestWhatTheProductTakesIsJudged(t *testing.T) {
	j := &judge{TB: t}
	// No machine was stalled for as long.
	stall.Begin(j).Within(-200*365*24*time.Hour, "a promise kept too late")
	if j.failed == "" {
		t.Error("it was not told")
	}
	stall.Begin(t).Within(time.Hour, "a promise kept in time")
}
