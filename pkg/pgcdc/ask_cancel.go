package pgcdc

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// cancel takes a reading that was asked for off the list, wherever it stands there, ends its query, and stores that. A chunk
// of it that is on its way is not put: its place comes behind this one's.
func (a *readings) cancel(ctx context.Context, t ownTransaction, which *asked) error {
	a.mu.Lock()
	at := slices.IndexFunc(a.pending, func(r reading) bool { return r.Asked != nil && r.Asked.ID == which.ID })
	if at < 0 {
		a.mu.Unlock()
		return nil // it has ended
	}
	r := a.pending[at]
	a.pending = slices.Delete(slices.Clone(a.pending), at, at+1)
	delete(a.paces, r.LSN)
	if at == 0 && a.stop != nil {
		a.stop()
	}
	a.keepEnded(Ended{ID: r.Asked.ID, LSN: r.LSN, Table: r.Asked.Table, Rows: r.ReadRows, Error: "cancelled by " + which.Who, Cancelled: true, Time: time.Now().UTC()})
	if len(a.pending) == 0 {
		clear(a.changed)
		a.report.nothing()
	}
	a.mu.Unlock()
	a.opts.Log.Info("the reading of rows was cancelled", "id", which.ID, "table", r.Asked.Table, "who", which.Who, "rows", r.ReadRows)
	if err := a.store(ctx, t.commit+1); err != nil {
		return err
	}
	a.announce()
	return nil
}

// askCancel writes to the log that a reading is not wanted any more, and returns when that is stored.
func (a *readings) askCancel(ctx context.Context, ask Ask) (Answer, error) {
	r, ended, known := a.askedFor(ask.ID)
	switch {
	case !known:
		return Answer{}, Unfit("nothing is known of %q: tributary snapshot --list shows what is asked for", ask.ID)
	case ended != nil:
		return ended.cancelled()
	}
	content, err := json.Marshal(additionMessage{Slot: a.opts.Slot, Cancel: &asked{ID: ask.ID, Who: ask.Who}})
	if err != nil {
		return Answer{}, err
	}
	conn, err := a.connector.open(ctx)
	if err != nil {
		return Answer{}, fmt.Errorf("connect to cancel %s: %w", ask.ID, err)
	}
	defer closeConn(ctx, conn)
	if _, err := conn.Exec(ctx, "SELECT pg_logical_emit_message(true, $1, $2::text)", additionPrefix, string(content)); err != nil {
		return Answer{}, fmt.Errorf("write to the log that %s is cancelled: %w", ask.ID, err)
	}
	for {
		a.mu.Lock()
		arrived := a.arrived
		a.mu.Unlock()
		if _, ended, _ := a.askedFor(ask.ID); ended != nil { // perhaps before the message came
			return ended.cancelled()
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return Answer{ID: ask.ID, Table: r.Asked.Table}, fmt.Errorf("wait until it comes through the stream: %w", context.Cause(ctx))
		}
	}
}

// cancelled is the answer to who wants a reading to end that has ended.
func (e *Ended) cancelled() (Answer, error) {
	if !e.Cancelled {
		return Answer{}, Unfit("%s has ended: %d rows of %s were read", e.ID, e.Rows, e.Table)
	}
	return Answer{ID: e.ID, Table: e.Table, Rows: int64(e.Rows), LSN: e.LSN}, nil
}

// askedFor finds a reading that somebody asked for, or what came of it.
func (a *readings) askedFor(id string) (r reading, ended *Ended, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.pending {
		if a.pending[i].Asked != nil && a.pending[i].Asked.ID == id {
			return a.pending[i], nil, true
		}
	}
	for i := range a.ended {
		if a.ended[i].ID == id {
			e := a.ended[i]
			return r, &e, true
		}
	}
	return r, nil, false
}
