package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/test/harness"
)

// What lies behind the slot can't be read again: ingest ends with what is missing and the way out, and doctor says the same.
func TestAStreamBehindTheSlotIsRefused(t *testing.T) {
	const atOnce = "ingest: {rewind: 0s}\n" // the slot forgets what is stored, at once
	cases := map[string]struct {
		config string
		lose   func(t *testing.T, s *harness.System, earlier string)
		says   []string
	}{
		"restored from an old backup": {
			config: atOnce,
			lose:   func(_ *testing.T, s *harness.System, earlier string) { s.PowerCut(earlier, events.StreamEvents) },
			says:   []string{"are gone: slot tributary_shop was advanced to there", "although the mirror says that incarnation 1 of shop (streaming)", "snapshot --reset shop"},
		},
		"restored from an old backup, without a mirror": {
			config: "ingest: {rewind: 0s, checkpoints: false}\n",
			lose:   func(_ *testing.T, s *harness.System, earlier string) { s.PowerCut(earlier, events.StreamEvents) },
			says:   []string{"are gone: slot tributary_shop was advanced to there", "snapshot --reset shop"},
		},
		"purged": {
			lose: func(t *testing.T, s *harness.System, _ string) {
				stream, err := s.JetStream().Stream(t.Context(), events.StreamEvents)
				if err == nil {
					err = stream.Purge(t.Context())
				}
				if err != nil {
					t.Fatal(err)
				}
			},
			says: []string{"EVENTS has no position of source shop", "the mirror says", "checkpoint set shop --from-mirror", "snapshot --reset shop"},
		},
		"purged, without a mirror": {
			config: "ingest: {checkpoints: false}\n",
			lose: func(t *testing.T, s *harness.System, _ string) {
				if err := s.JetStream().DeleteStream(t.Context(), events.StreamEvents); err != nil {
					t.Fatal(err)
				}
			},
			says: []string{"slot tributary_shop exists already, but no position of source shop is known", "pg_drop_replication_slot"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.New(t, harness.Options{Config: c.config})
			s.Start("ingest")
			s.WaitForLeader()
			s.Exec(`INSERT INTO orders (id) VALUES (1)`)
			s.WaitForEvents(1, 30*time.Second)
			earlier := s.CopyStore()
			s.Exec(`INSERT INTO orders (id) VALUES (2), (3)`)
			s.WaitForEvents(3, 30*time.Second)
			last := s.Events("shop")[2].Event.Sequence
			if !strings.Contains(c.config, "checkpoints: false") {
				waitForMirror(t, s, last)
			}
			if strings.Contains(c.config, "rewind: 0s") {
				harness.Eventually(t, 30*time.Second, "the slot forgets what is stored", func() bool {
					var behind bool
					err := s.DB.QueryRow(context.Background(), `SELECT confirmed_flush_lsn > $1::pg_lsn FROM pg_replication_slots WHERE slot_name = 'tributary_shop'`,
						events.LSN(last.Commit).String()).Scan(&behind)
					return err == nil && behind
				})
			}
			s.Stop("ingest")
			c.lose(t, s, earlier)
			harness.Eventually(t, 30*time.Second, "NATS answers", func() bool { return s.NATS().IsConnected() })

			refused := s.StartWith("ingest")
			if status := refused.ExitCode(20 * time.Second); status != 1 {
				t.Errorf("ingest ended with status %d", status)
			}
			doctor := tributary(t, s, "doctor", "-o", "json")
			if doctor.status != 1 {
				t.Errorf("doctor ended with status %d", doctor.status)
			}
			for _, words := range c.says {
				if said := refused.Tail(4); !strings.Contains(said, words) {
					t.Errorf("ingest does not say %q: %s", words, said)
				}
				if !strings.Contains(doctor.stdout, words) {
					t.Errorf("doctor does not say %q: %s", words, doctor.stdout)
				}
			}
		})
	}
}
