package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/test/harness"
)

// No FIN comes, and what is sent is taken: only that nothing is said tells.
func TestAPostgresThatFallsSilentIsNotWaitedFor(t *testing.T) {
	s := harness.New(t, harness.Options{Source: harness.SourceOfFailovers})
	way := s.Through("ingest").Postgres
	s.Start("ingest")
	s.WaitForLeader()
	s.Exec(`INSERT INTO orders (id) VALUES (1)`)
	s.WaitForEvents(1, time.Minute)
	way.Still()
	s.Exec(`INSERT INTO orders (id) SELECT generate_series(2, 100)`)
	harness.Eventually(t, time.Minute, "ingest says that it is not ready, and why", func() bool {
		status, body := s.Get("ingest", "/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "the server does not answer")
	})
	if log := s.Process("ingest").Log(); !strings.Contains(log, "reading stopped; it will go on") || !strings.Contains(log, "the server does not answer") {
		t.Errorf("the log does not tell:\n%s", s.Process("ingest").Tail(10))
	}
	way.Mend()
	s.WaitForEvents(100, time.Minute)
	harness.Eventually(t, time.Minute, "ingest is ready again", func() bool {
		status, _ := s.Get("ingest", "/readyz")
		return status == http.StatusOK
	})
	s.CheckStream(100)
}
