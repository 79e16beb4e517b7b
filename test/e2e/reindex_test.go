package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/test/harness"
)

// An index that is another one than before is filled again, and doctor does not say that all is well before.
func TestAnotherIndexIsFilledAgain(t *testing.T) {
	s := harness.New(t, harness.Options{})
	s.Start("ingest", "indexer")
	s.WaitForLeader()
	const rows = 40
	s.Exec(`INSERT INTO orders (id) SELECT generate_series(1, 40)`)
	holds := func(n int) func() bool {
		return func() bool {
			var found struct{ Total int }
			r := tributary(t, s, "search", "op:insert", "-o", "json")
			return r.status == 0 && json.Unmarshal([]byte(r.stdout), &found) == nil && found.Total == n
		}
	}
	harness.Eventually(t, 60*time.Second, "the index holds all rows", holds(rows))

	s.Stop("indexer")
	if err := os.RemoveAll(filepath.Join(s.Dir, "state", "indexer", "index")); err != nil {
		t.Fatal(err)
	}
	s.Start("indexer")
	harness.Eventually(t, 60*time.Second, "an emptied folder is filled again", holds(rows))
	if n := s.Metric("indexer", "tributary_indexer_restarts_total"); n != 1 || !strings.Contains(s.Process("indexer").Log(), "filled from the beginning of EVENTS") {
		t.Errorf("it was begun %v times again:\n%s", n, s.Process("indexer").Tail(10))
	}
	harness.Eventually(t, 30*time.Second, "doctor names the index", func() bool {
		return strings.Contains(tributary(t, s, "doctor").stdout, "embedded (embedded:")
	})

	// A second indexer with a folder of its own has nothing to do while the first one lives: it waits for its turn. Then
	// the events are its own.
	s.Start("indexer-2")
	s.Stop("indexer")
	harness.Eventually(t, 60*time.Second, "another folder is filled", func() bool {
		return s.Metric("indexer-2", "tributary_indexer_indexed_total") >= rows && holds(rows)()
	})

	// Elasticsearch takes over, then another index in it.
	s.Stop("indexer-2")
	for _, c := range []*cluster{newCluster(t), newCluster(t)} {
		s.Setenv("TRIBUTARY_INDEXER_ELASTICSEARCH", c.url)
		s.Setenv("TRIBUTARY_INDEXER_INDEX", c.prefix)
		name := "indexer-" + c.prefix
		s.Start(name)
		harness.Eventually(t, 60*time.Second, "the index "+c.prefix+" is filled", func() bool {
			return s.Metric(name, "tributary_indexer_indexed_total") >= rows && len(c.ids()) >= rows
		})
		s.Stop(name)
	}
}
