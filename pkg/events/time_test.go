package events_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tributary-dev/tributary/pkg/events"
)

func TestAChangeWithoutATimeHasNone(t *testing.T) {
	envelope := events.AppendChange(nil, &events.Change{
		ID: []byte("shop-1-0000000000000001-0-0"), Source: "shop", Op: events.OpMessage, PartitionKey: []byte("outbox"),
		Prefix: "outbox", Content: []byte(`1`),
	})
	if strings.Contains(string(envelope), `"time"`) {
		t.Errorf("got %s", envelope)
	}
	e, err := events.Parse(envelope)
	if err != nil || !e.Time.IsZero() {
		t.Errorf("read with the time %v (%v)", e.Time, err)
	}
}

func TestTimesAreWrittenAsPackageTimeDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const year0, year10000 = -62167219200, 253402300800
		at := time.Unix(rapid.Int64Range(year0-1e9, year10000+1e9).Draw(t, "second"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanosecond")).
			In(time.FixedZone("", rapid.IntRange(-50_000, 50_000).Draw(t, "zone")))
		c := example()
		c.Time = at
		if want := `"time":"` + at.UTC().Format(events.TimeFormat) + `"`; !strings.Contains(string(events.AppendChange(nil, c)), want) {
			t.Errorf("%v is not written as %s", at, want)
		}
	})
}
