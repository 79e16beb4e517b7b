package pgcdc

import (
	"context"

	"github.com/tributary-dev/tributary/pkg/ingest"
)

// WouldRefuse tells whether Run would go on from where EVENTS and the mirror are: nil, what Run would refuse with, or why it
// can't be told. It changes nothing, and may be asked while the source is read: where gives the state, and is called after
// the slot was looked at, which may be told to forget what was stored meanwhile.
func WouldRefuse(ctx context.Context, o Options, where func(context.Context) (ingest.State, error)) error {
	o.Partitions, o.MaxEvent = max(o.Partitions, 1), 0
	source, err := New(o)
	if err != nil {
		return err
	}
	r := &run{Source: source, query: newQuerier(source.openQuery)}
	defer r.query.close(ctx)
	slot, err := r.readSlot(ctx)
	if err != nil {
		return err
	}
	if r.state, err = where(ctx); err != nil {
		return err
	}
	system, err := r.identify(ctx)
	if err != nil {
		return err
	}
	if err := r.checkMirror(system); err != nil {
		return err
	}
	switch r.state.Position.Phase {
	case ingest.PhaseSnapshot, ingest.PhaseStreaming:
	case "":
		return r.checkSlotFree(ctx)
	default:
		return nil
	}
	if err := r.checkSystem(system); err != nil {
		return err
	}
	if err := r.judgeSlot(slot); err != nil {
		return err
	}
	p, err := r.readPublication(ctx)
	if err == nil && p == nil {
		err = r.refuseUnpublished()
	}
	return err
}
