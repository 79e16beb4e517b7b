package worker

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/circuit"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// effect is one thing that is due because of an event: an action of an observer, or a dead letter where that could not
// even be rendered.
type effect struct {
	entry    *entry
	owner    *partition
	set      *laneSet
	lane     laneKey
	in       *lane // the lane it was put into last; guarded by the scheduler's lock
	endpoint string
	circuit  string
	state    effectState // guarded by the partition's lock
	tries    int         // how often the claim was put off
	sealed   bool        // its request is

	drain   *drain // that brought it; nil where its event was delivered
	drained bool   // it is settled; guarded by the partition's lock
	expired bool   // its circuit was open for too long: it is given up
	pass    *circuit.Pass

	rehearsed bool // it was not sent, for its observer runs dry

	key   string // the effect key
	due   *due
	trace effectTrace

	ledgered bool // its claim lies in the partition's ledger
	id       dedupkv.ID
	reserved reserved
}

// due is what the rules say of one effect.
type due struct {
	observer, action string
	generation       string
	async            bool // straight to JOBS
	ordered          bool
	dryRun           bool
	resting          bool       // its observer was paused when the event was judged, so there is no request
	lane             *jobs.Lane // of jobs, where the order is strict; else nil
	policy           retry.Policy
	onFailure        jobs.OnFailure
	request          actions.Request
	pending          observers.Pending // where request is pending
	reason           deadletter.Reason // where err is not nil
	err              error             // why there is no request
}

// read decodes a delivery. What is no event has no line, and is a dead letter.
func (w *Worker) read(p *partition, d delivery, msg *nats.Msg) *entry {
	e := &entry{stream: d.stream, stored: d.stored, subject: msg.Subject, data: msg.Data}
	address, err := events.ParseAddress(msg.Subject)
	if err == nil {
		e.address = address
		e.event, err = events.Parse(msg.Data)
	}
	var incarnation uint64
	if err == nil {
		incarnation, err = incarnationOf(address, e.event)
	}
	if err == nil {
		e.at = e.event.Sequence
		e.line = p.lineOf(dedupkv.Line{Made: p.made, Source: address.Source, Incarnation: incarnation, Partition: p.number})
		return e
	}
	e.event = nil
	key := "undecodable~" + p.consumer.name + "~" + strconv.FormatInt(p.made, 36) + "~" + strconv.FormatUint(d.stream, 10)
	e.add(p, key, &due{onFailure: jobs.DeadLetter, reason: deadletter.Undecodable, err: err})
	return e
}

// incarnationOf reads the incarnation from the id of a row: <source>-<incarnation>-…
func incarnationOf(address events.Address, e *events.Event) (uint64, error) {
	if address.FromApplication() {
		return 0, nil
	}
	rest, ok := strings.CutPrefix(e.ID, address.Source+"-")
	digits, _, more := strings.Cut(rest, "-")
	incarnation, err := strconv.ParseUint(digits, 10, 64)
	if !ok || !more || err != nil || !events.ValidID(e.ID) {
		return 0, fmt.Errorf("%w: id %q is not one of source %s", events.ErrInvalid, e.ID, address.Source)
	}
	return incarnation, nil
}

func (e *entry) add(p *partition, key string, d *due) {
	x := &effect{entry: e, owner: p, set: &p.set, key: key, due: d}
	x.lane = laneKey{observer: d.observer, action: d.action}
	if d.ordered {
		x.lane.key = e.event.PartitionKey
	} else {
		x.lane.sole = e.stream
	}
	x.circuit = circuit.Name(&d.request)
	switch {
	case d.err != nil || d.async:
		x.endpoint = endpointOwn
	default:
		x.endpoint = cmp.Or(d.request.Circuit, d.request.Endpoint, d.request.Type)
	}
	if e.line != nil && e.line.ledgered() {
		x.ledgered, x.id = true, dedupkv.IDOf(key)
	}
	e.effects = append(e.effects, x)
	e.open++
}

// endpointOwn stands for NATS, where jobs and dead letters go. No request has it: origins have a scheme.
const endpointOwn = ""

func (x *effect) record(result dedupkv.Result) settledRecord {
	return settledRecord{key: x.key, result: result, ledgered: x.ledgered, id: x.id}
}

func (x *effect) name() actions.Effect {
	name := actions.Effect{Key: x.key, Observer: x.due.observer, Action: x.due.action}
	if e := x.entry.event; e != nil {
		name.EventID, name.Sequence = e.ID, e.Sequence.String()
	}
	return name
}
