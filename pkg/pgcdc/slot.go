package pgcdc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tributary-dev/tributary/pkg/events"
)

// branch is where a timeline ended, and the next one began.
type branch struct {
	timeline int32
	end      events.LSN
}

// read asks a replication connection.
func (s *system) read(ctx context.Context, conn *pgconn.PgConn) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	row, err := command(ctx, conn, "IDENTIFY_SYSTEM", 3)
	if err != nil {
		return err
	}
	timeline, err := strconv.ParseInt(string(row[1]), 10, 32)
	if err != nil {
		return fmt.Errorf("read the timeline: %w", err)
	}
	s.id, s.timeline = string(row[0]), int32(timeline)
	if s.flushed, err = events.ParseLSN(string(row[2])); err != nil {
		return err
	}
	if s.timeline == 1 {
		return nil // the first has no history
	}
	if row, err = command(ctx, conn, fmt.Sprintf("TIMELINE_HISTORY %d", s.timeline), 2); err != nil {
		return err
	}
	s.history, err = parseHistory(row[1])
	return err
}

// command runs a replication command that gives one row of at least n columns.
func command(ctx context.Context, conn *pgconn.PgConn, text string, n int) ([][]byte, error) {
	verb, _, _ := strings.Cut(text, " ")
	results, err := conn.Exec(ctx, text).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", verb, err)
	}
	if len(results) == 0 || len(results[0].Rows) == 0 || len(results[0].Rows[0]) < n {
		return nil, fmt.Errorf("%s: the server gave no answer", verb)
	}
	return results[0].Rows[0], nil
}

// parseHistory reads a timeline history file: number, end and reason of each timeline before.
func parseHistory(text []byte) ([]branch, error) {
	var history []branch
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		timeline, err := strconv.ParseInt(fields[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("read the timelines' history: %w", err)
		}
		end, err := events.ParseLSN(fields[1])
		if err != nil {
			return nil, fmt.Errorf("read the timelines' history: %w", err)
		}
		history = append(history, branch{timeline: int32(timeline), end: end})
	}
	return history, nil
}

// checkResume refuses to go on where the server does not have what comes after our position, and brings the publication
// up to date.
func (r *run) checkResume(ctx context.Context, s *system) error {
	if err := r.checkSystem(s); err != nil {
		return err
	}
	if err := r.checkSlot(ctx); err != nil {
		return err
	}
	p, err := r.readPublication(ctx)
	if err != nil {
		return err
	}
	if p == nil {
		return r.refuseUnpublished()
	}
	if err := r.addTables(ctx); err != nil {
		r.opts.Log.Warn("add new tables to the publication", "publication", r.opts.Publication, "err", err)
	}
	if r.out.position.Timeline != s.timeline {
		return r.followTimeline(ctx, s.timeline)
	}
	return nil
}

// followTimeline stores that what comes now is of a new timeline, before any of it is: an event does not say so, and one from
// behind the switch would look as if it were of the old timeline, and lost there.
func (r *run) followTimeline(ctx context.Context, timeline int32) error {
	position := &r.out.position
	r.opts.Log.Warn("the server is on a new timeline", "before", position.Timeline, "now", timeline)
	position.Timeline, position.Cursor = timeline, r.state.Position.Cursor
	r.out.mark(0)
	position.Cursor = nil
	return r.out.sync(ctx)
}

func (r *run) refuseUnpublished() error {
	return refused("publication %s was dropped, and the slot can't read without it: to start over with a new slot and snapshot: %s",
		r.opts.Publication, r.resetCommand())
}

// checkSystem refuses a server that is not the one that was read, or that does not hold all that was published.
func (r *run) checkSystem(s *system) error {
	position, through := &r.state.Position, r.state.Through
	if position.SystemID != s.id {
		return refused("%s is database system %s, and source %s has read %s: point sources[].postgres at that one, or start over with: %s",
			r.connector.place(), s.id, r.opts.Name, position.SystemID, r.resetCommand())
	}
	behind := func(end events.LSN) error {
		return refused("%s knows its past up to %s, and changes up to %s were published: it was restored, or took over without them; to start over: %s",
			r.connector.place(), end, through, r.resetCommand())
	}
	if position.Timeline != s.timeline {
		for _, b := range s.history {
			if b.timeline == position.Timeline {
				if through > b.end {
					return behind(b.end)
				}
				return nil
			}
		}
		return refused("%s is on timeline %d, which does not come from timeline %d that source %s has read: it was restored; to start over: %s",
			r.connector.place(), s.timeline, position.Timeline, r.opts.Name, r.resetCommand())
	}
	if through > s.flushed {
		if s.standby {
			return fmt.Errorf("the standby %s has come to %s, and changes up to %s were published: waiting for it", r.connector.place(), s.flushed, through)
		}
		return behind(s.flushed)
	}
	return nil
}

// slotState is a row of pg_replication_slots.
type slotState struct {
	plugin, database, current, walStatus *string
	pid                                  *int32
	confirmed                            *string
}

func (r *run) readSlot(ctx context.Context) (*slotState, error) {
	s := new(slotState)
	err := r.query.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		const question = `SELECT plugin::text, database::text, current_database()::text, wal_status, active_pid, confirmed_flush_lsn::text
			FROM pg_replication_slots WHERE slot_name = $1`
		return conn.QueryRow(ctx, question, r.opts.Slot).Scan(&s.plugin, &s.database, &s.current, &s.walStatus, &s.pid, &s.confirmed)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read slot %s: %w", r.opts.Slot, err)
	}
	return s, nil
}

// endPredecessor ends the walsender of an earlier leader, which may be frozen, or dead and not noticed yet: whoever reads
// has taken over in EVENTS before, so nothing that the earlier one would still read can be stored. A reader of another
// name is left alone.
func (r *run) endPredecessor(ctx context.Context, pid int32) error {
	var ended bool
	err := r.query.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		const end = `SELECT coalesce(bool_or(pg_terminate_backend(pid, 3000)), false) FROM pg_stat_replication WHERE pid = $1 AND application_name = $2`
		return conn.QueryRow(ctx, end, pid, applicationName(r.opts.Name)).Scan(&ended)
	})
	if err != nil {
		return fmt.Errorf("end the earlier reader of slot %s: %w", r.opts.Slot, err)
	}
	if now, err := r.readSlot(ctx); !ended && err == nil && now != nil && now.pid == nil {
		return nil // it ended by itself meanwhile
	}
	if !ended {
		return fmt.Errorf("slot %s is in use by process %d of the server: another reader has it, or one that died is not noticed yet", r.opts.Slot, pid)
	}
	r.opts.Log.Info("ended the earlier leader's reading", "slot", r.opts.Slot, "process", pid)
	return nil
}

// checkSlot refuses a slot that is not there, or that does not have what comes next, and ends who reads it.
func (r *run) checkSlot(ctx context.Context) error {
	s, err := r.readSlot(ctx)
	if err != nil {
		return err
	}
	if err := r.judgeSlot(s); err != nil {
		return err
	}
	if s.pid != nil {
		return r.endPredecessor(ctx, *s.pid)
	}
	return nil
}

func (r *run) judgeSlot(s *slotState) error {
	slot := r.opts.Slot
	known := r.state.Position.Slot
	switch {
	case known != slot:
		return refused("sources[].slot is %s, and source %s reads slot %s: set it back, or start over with: %s", slot, r.opts.Name, known, r.resetCommand())
	case s == nil:
		return refused("slot %s is gone, and with it the changes since %s: to start over with a new slot and snapshot: %s", slot, r.state.Through, r.resetCommand())
	case text(s.plugin) != "pgoutput" || text(s.database) != text(s.current):
		return refused("slot %s reads database %q by plugin %q, not %q by pgoutput: name another in sources[].slot", slot, text(s.database), text(s.plugin), text(s.current))
	case text(s.walStatus) == "lost":
		return refused("slot %s is lost: the server removed what comes after %s (max_slot_wal_keep_size); to start over with a new slot and snapshot: %s",
			slot, r.state.Through, r.resetCommand())
	}
	confirmed, err := events.ParseLSN(text(s.confirmed))
	if err != nil {
		return fmt.Errorf("read slot %s: %w", slot, err)
	}
	if r.state.Through < confirmed {
		return refused("the changes between %s and %s are gone: slot %s was advanced to there, and they are not in EVENTS%s; to start over with a new slot and snapshot: %s",
			r.state.Through, confirmed, slot, r.mirrorSays(", although "), r.resetCommand())
	}
	return nil
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
