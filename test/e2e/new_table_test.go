package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/test/harness"
)

func TestATableThatIsMadeWhileRunningIsReadWhole(t *testing.T) {
	s := harness.New(t, harness.Options{Observers: `
observers:
  - name: parcels
    match: {source: shop, entity: public.parcels}
    actions:
      - {name: tell, type: webhook, url: "${receiver}/parcels", timeout: 5s}
`})
	s.Start("ingest", "worker", "jobrunner")
	s.WaitForLeader()
	s.Exec(`CREATE TABLE parcels (id bigint PRIMARY KEY, status text)`)
	s.Exec(`INSERT INTO parcels SELECT i, 'new' FROM generate_series(1, 2000) i`)
	s.Exec(`UPDATE parcels SET status = 'sent' WHERE id <= 500`)
	last := func() map[string]string {
		states := map[string]string{}
		for _, e := range s.Events("shop") {
			states[string(e.Row.Key)] = string(e.Row.After)
		}
		return states
	}
	harness.Eventually(t, time.Minute, "every row is in EVENTS", func() bool { return len(last()) == 2000 })
	s.Exec(`UPDATE parcels SET status = 'done' WHERE id = 2000`)
	harness.Eventually(t, time.Minute, "the last change is in EVENTS", func() bool {
		return last()[`{"id":2000}`] == `{"id":2000,"status":"done"}`
	})
	ends := last()
	for i := range 1999 {
		want := "new"
		if i < 500 {
			want = "sent"
		}
		if got := ends[fmt.Sprintf(`{"id":%d}`, i+1)]; got != fmt.Sprintf(`{"id":%d,"status":%q}`, i+1, want) {
			t.Fatalf("row %d ends as %s", i+1, got)
		}
	}
	s.Receiver.WaitFor(len(s.Events("shop")), time.Minute)
}
