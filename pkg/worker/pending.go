package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/circuit"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers"
)

// An effect whose observer has lookups is resolved here: in its lane and its slot, so that a slow lookup delays what waits
// for it and nothing else. What comes of it is sealed before it is sent: whoever takes the effect over from a worker that died
// then sends the same bytes, whatever the lookups answer by then. What fails is an attempt that failed, and is tried again as
// a job, whose runner resolves it; a condition that is false leaves nothing to do.

// lookups answers the lookups of observers; it is *lookup.Lookups.
type lookups interface {
	Fetch(ctx context.Context, q observers.Lookup) ([]byte, error)
}

const (
	sealPrefix = "sealed_"          // of keys in KV dedup; a claim's key is 43 characters without one
	sealFor    = 7 * 24 * time.Hour // a seal goes with the settling; this is for those whose worker died in between
)

// seals keeps what was rendered of effects that are under way.
type seals struct {
	bucket *natskv.Bucket
	most   func() int64 // bytes of a message
}

func sealKey(effectKey string) string { return sealPrefix + events.KVKey(effectKey) }

// read gives what was sealed, nil where nothing was.
func (s seals) read(ctx context.Context, key string) (*actions.Request, error) {
	entry, err := s.bucket.Get(ctx, sealKey(key))
	if errors.Is(err, natskv.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	request := new(actions.Request)
	if json.Unmarshal(entry.Value, request) != nil { // it was dropped
		return nil, nil
	}
	return request, nil
}

// errShut says that what an effect was resolved to may not be called now.
var errShut = errors.New("its circuit is open")

// attempt makes the first attempt of an effect, once its request is there. The pass that a pending effect has is for what its
// lookups ask; what it sends then needs one of its own.
func (w *Worker) attempt(x *effect, claim dedupkv.Claim) (outcome actions.Outcome, err error) {
	if x.due.request.Type != actions.Pending {
		return w.actions.Do(w.acting, x.name(), x.due.request)
	}
	err = w.resolve(x, claim)
	var unrendered *actions.RenderError
	switch {
	case err == nil, errors.Is(err, actions.ErrNotDue):
		x.pass.Done(nil)
	case errors.As(err, &unrendered):
		x.pass.Return()
	}
	if err != nil {
		return actions.Outcome{}, err
	}
	pass, answer := w.circuits.Enter(circuit.Name(&x.due.request))
	if answer != circuit.Yes {
		return actions.Outcome{}, errShut
	}
	defer pass.Return()
	if outcome, err = w.actions.Do(w.acting, x.name(), x.due.request); w.acting.Err() == nil {
		pass.Done(err)
	}
	return outcome, err
}

// resolve replaces the pending request of an effect by the one that is sent.
func (w *Worker) resolve(x *effect, claim dedupkv.Claim) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("lookups panicked: %v", p)
		}
	}()
	d := x.due
	if claim.Revision != 0 { // a claim that is fresh may be one that was given back in the middle of an attempt
		var sealed *actions.Request
		err := w.insist(func(ctx context.Context) (err error) {
			sealed, err = w.seals.read(ctx, x.key)
			return err
		}, errStopped)
		if err != nil {
			return err
		}
		if sealed != nil {
			d.request, x.sealed = *sealed, true
			return nil
		}
	}
	if w.lookups == nil {
		return errors.New("this worker was made without lookups")
	}
	request, err := d.pending.Resolve(w.acting, w.lookups.Fetch)
	if err != nil {
		return err
	}
	if claim.Revision != 0 { // else KV is away, and nothing can be kept
		if err := w.seal(x, request); err != nil {
			return err
		}
	}
	d.request = request
	return nil
}

func (w *Worker) seal(x *effect, request actions.Request) error {
	const room = 4 << 10 // for headers and the subject
	text, err := json.Marshal(request)
	if err != nil {
		return &actions.RenderError{Err: err}
	}
	if most := w.seals.most(); int64(len(text)) > most-room {
		return &actions.RenderError{Err: fmt.Errorf("with what its lookups answered the request has %d bytes, more than NATS takes", len(text))}
	}
	x.sealed = true
	return w.insist(func(ctx context.Context) error {
		_, err := w.seals.bucket.Put(ctx, sealKey(x.key), text, sealFor)
		return err
	}, errStopped)
}

// unseal drops what was sealed of an effect that is settled. It does not wait.
func (w *Worker) unseal(x *effect) {
	if !x.sealed {
		return
	}
	if err := w.seals.bucket.PutAsync(sealKey(x.key), nil, time.Second); err != nil {
		w.log.Debug("a sealed request stays for longer", "effect", x.key, "error", err)
	}
}

// reasonOf says under which reason an effect ends of which nothing can be rendered.
func reasonOf(err *actions.RenderError) deadletter.Reason {
	if err.Condition {
		return deadletter.Condition
	}
	return deadletter.Render
}
