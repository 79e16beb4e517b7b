package events_test

import (
	"fmt"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
)

// An application published: nats pub publish.billing.invoice.paid.7 '{"amount":19.90}'
func ExampleAppendPublished() {
	publication, err := events.ParsePublication("publish.billing.invoice.paid.7")
	if err != nil {
		fmt.Println(err)
		return
	}
	envelope, err := events.AppendPublished(nil, events.Published{
		Publication: publication, Body: []byte(`{"amount":19.90}`), ID: "1001", Sequence: 1001, Time: time.Date(2026, 11, 23, 8, 45, 53, 0, time.UTC),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	event, err := events.Parse(envelope)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(event.Source, event.ID, event.Type, event.PartitionKey)
	fmt.Println(event.Sequence, event.Time)
	fmt.Println(string(event.Data))
	// Output:
	// /tributary/billing 1001 invoice.paid invoice/7
	// 00000000000003E9.0000000001 2026-11-23 08:45:53 +0000 UTC
	// {"amount":19.90}
}
