package events_test

import (
	"strings"
	"testing"

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
