package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/test/harness"
)

// TestWhatIsBadIsSaidOnce starts a service with something wrong, and reads its last line and its exit status.
func TestWhatIsBadIsSaidOnce(t *testing.T) {
	cases := map[string]struct {
		service string
		options harness.Options
		prepare func(*testing.T, *harness.System)
		args    []string
		status  int
		says    []string // all of them, in the last lines
	}{
		"an unknown key of the configuration": {
			service: "worker", options: harness.Options{Config: "worker: {concurency: 8}\n"},
			status: 1, says: []string{"worker.concurency", "tributary.yaml:"},
		},
		"an unknown flag": {
			service: "worker", args: []string{"--worker.concurency", "8"},
			status: 2, says: []string{"worker.concurency"},
		},
		"a bad URL of NATS": {
			service: "worker", args: []string{"--nats.url", "http://127.0.0.1"},
			status: 1, says: []string{"nats.url"},
		},
		"a source without its variable": {
			service: "ingest", prepare: func(t *testing.T, s *harness.System) { s.Setenv("SHOP_URL", "") },
			status: 1, says: []string{"sources[0].postgres", "SHOP_URL"},
		},
		"a slot that was dropped": {
			service: "ingest", prepare: func(t *testing.T, s *harness.System) {
				s.Start("ingest")
				s.WaitForLeader()
				s.Stop("ingest")
				s.DropSlot()
			},
			status: 1, says: []string{"tributary_shop", "snapshot --reset"},
		},
		"a slot that somebody else made": {
			service: "ingest", prepare: func(t *testing.T, s *harness.System) {
				s.Exec(`SELECT pg_create_logical_replication_slot('tributary_shop', 'pgoutput')`)
			},
			status: 1, says: []string{"tributary_shop", "pg_drop_replication_slot"},
		},
		"wal_level that is not logical": {
			service: "ingest", options: harness.Options{Settings: map[string]string{"wal_level": "replica"}},
			status: 1, says: []string{"wal_level", "ALTER SYSTEM SET wal_level"},
		},
		"a role without rights": {
			service: "ingest", prepare: func(t *testing.T, s *harness.System) {
				s.Exec(`CREATE ROLE weak LOGIN`)
				s.Setenv("SHOP_URL", strings.Replace(s.Postgres.URL("postgres"), "postgres@", "weak@", 1))
			},
			status: 1, says: []string{"weak", "REPLICATION"},
		},
		"a table without replica identity": {
			service: "ingest", options: harness.Options{Schema: harness.OrdersTable + `; CREATE TABLE logs (line text)`},
			status: 1, says: []string{"public.logs", "REPLICA IDENTITY FULL"},
		},
		"observers with a type error": {
			service: "worker", options: harness.Options{Observers: `
observers:
  - name: orders
    when: after.total + 1
    actions: [{name: tell, type: webhook, url: "${receiver}"}]
`},
			status: 1, says: []string{"observers.yaml:4:11", "true or false"},
		},
		"observers that are not there": {
			service: "worker", prepare: func(t *testing.T, s *harness.System) {
				if err := os.Remove(filepath.Join(s.Dir, "observers.yaml")); err != nil {
					t.Fatal(err)
				}
			},
			status: 1, says: []string{"observers", "observers.yaml"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := harness.New(t, c.options)
			if c.prepare != nil {
				c.prepare(t, s)
			}
			p := s.StartWith(c.service, c.args...)
			if status := p.ExitCode(20 * time.Second); status != c.status {
				t.Errorf("exit status %d, want %d", status, c.status)
			}
			tail := p.Tail(8)
			for _, words := range c.says {
				if !strings.Contains(tail, words) {
					t.Errorf("the error does not say %q:\n%s", words, tail)
				}
			}
			t.Log("it says: " + tail)
		})
	}
}

func TestEndpointOnAPrivateAddressIsRefused(t *testing.T) {
	s := harness.New(t, harness.Options{})
	s.Setenv("TRIBUTARY_ACTIONS_ALLOW_PRIVATE", "10.1.2.0/24") // not where the receiver is
	s.Start("ingest", "worker", "jobrunner")
	s.WaitForLeader()
	s.Exec(`INSERT INTO orders (id) VALUES (1)`)
	harness.Eventually(t, 30*time.Second, "the effect is a dead letter", func() bool { return s.CountDeadLetters() == 1 })
	record := fmt.Sprint(s.DeadLetters())
	for _, words := range []string{"127.0.0.1", "actions.allow_private", "permanent"} {
		if !strings.Contains(record, words) {
			t.Errorf("the dead letter does not say %q: %s", words, record)
		}
	}
	if n := len(s.Receiver.Deliveries()); n > 0 {
		t.Errorf("%d requests came", n)
	}
}
