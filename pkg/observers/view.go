package observers

import (
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers/expr"
)

// View is one event as observers see it. What expressions read of it is decoded when the first one asks, and once for
// all of them. It is safe for concurrent use.
type View struct {
	address events.Address
	raw     []byte
	input   *expr.Input

	sequence events.Sequence
	answered bool // the lookups of an observer are in the input
}

// NewView makes the view of an event: raw is the envelope as it lies in EVENTS, e what events.Parse made of it. Both
// are kept, and must stay as they are.
func NewView(address events.Address, raw []byte, e *events.Event) *View {
	return &View{
		address: address,
		raw:     raw, sequence: e.Sequence,
		input: expr.NewInput(expr.Fields{
			Envelope: raw,
			Data:     e.Data,
			Op:       string(address.Op),
			Row:      address.Op != events.OpMessage,
		}),
	}
}
