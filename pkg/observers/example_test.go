package observers_test

import (
	"fmt"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers"
)

func ExampleParse() {
	set, err := observers.Parse("observers.yaml", []byte(`
observers:
  - name: order-shipped
    match: {source: shop, entity: public.orders, ops: [update]}
    when: changed("status") && after.status == "shipped"
    actions:
      - name: tell-carrier
        type: webhook
        url: https://carrier.example/hooks/${after.region}
        body: '{"order": after.id, "state": after.status}'
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	raw := []byte(`{"specversion":"1.0","id":"shop-1-0000000016B37488-771-3","source":"/tributary/shop",` +
		`"type":"tributary.row.update.v1","partitionkey":"public.orders/42","sequence":"0000000016B37488.0000000003",` +
		`"data":{"op":"update","schema":"public","table":"orders","key":{"id":42},` +
		`"before":{"id":42,"status":"packed","region":"eu/west"},` +
		`"after":{"id":42,"status":"shipped","region":"eu/west"},"changed":["status"]}}`)
	event, err := events.Parse(raw)
	if err != nil {
		fmt.Println(err)
		return
	}
	address := events.Address{Source: "shop", Schema: "public", Table: "orders", Op: events.OpUpdate}
	view := observers.NewView(address, raw, event)
	for _, match := range set.Match(view) {
		for _, action := range match.Observer.Actions {
			request, err := action.Render(view)
			fmt.Println(match.Observer.Name, action.Name, err)
			fmt.Println(request.Method, request.URL)
			fmt.Println(string(request.Body))
		}
	}
	// Output:
	// order-shipped tell-carrier <nil>
	// POST https://carrier.example/hooks/eu%2Fwest
	// {"order":42,"state":"shipped"}
}

func ExampleError() {
	_, err := observers.Parse("observers.yaml", []byte(`observers:
  - name: order-shipped
    when: aftr.status == "shipped"
    actions: [{name: note, type: log, message: shipped}]
`))
	fmt.Println(err)
	// Output:
	// observers.yaml:3:11: when: undeclared reference to 'aftr' (did you mean 'after'?)
	//   3 |     when: aftr.status == "shipped"
	//     |           ^
	//   variables: event, before, after, key, op; functions: changed(f), changed_to(f, v), changed_from(f, v), has(after.f), and those of CEL
}
