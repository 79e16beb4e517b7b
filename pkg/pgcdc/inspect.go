package pgcdc

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// Standing is how a database's log and a slot of it stand.
type Standing struct {
	Flushed   events.LSN // the end of the log
	Exists    bool       // the slot; the rest is zero where it does not
	Active    bool       // somebody reads from it
	Plugin    string
	Database  string // that the slot decodes
	WALStatus string // reserved, extended, unreserved or lost
	Confirmed events.LSN
	Restart   events.LSN // WAL is kept from here on
	SafeBytes int64      // that may be written before the slot is in danger; negative where nothing limits what is kept
}

// Retained is how many bytes of WAL the slot keeps.
func (s Standing) Retained() int64 {
	if !s.Exists || s.Restart == 0 || s.Restart > s.Flushed {
		return 0
	}
	return int64(s.Flushed - s.Restart)
}

const standingSQL = `
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END::text,
       s.slot_name IS NOT NULL, coalesce(s.active, false), coalesce(s.plugin::text, ''), coalesce(s.database::text, ''),
       coalesce(s.wal_status, ''), coalesce(s.confirmed_flush_lsn, '0/0')::text, coalesce(s.restart_lsn, '0/0')::text,
       coalesce(s.safe_wal_size, -1)
  FROM (SELECT) one LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name = $1`

// Stand looks at the log and the slot of a database.
func Stand(ctx context.Context, url, slot string) (Standing, error) {
	c, err := newConnector("status", url, receiveTimeout)
	if err != nil {
		return Standing{}, fmt.Errorf("look at slot %s: %w", slot, err)
	}
	conn, err := c.open(ctx)
	if err != nil {
		return Standing{}, fmt.Errorf("connect to %s: %w", c.place(), err)
	}
	defer closeConn(ctx, conn)
	return stand(ctx, conn, slot)
}

func stand(ctx context.Context, conn *pgx.Conn, slot string) (s Standing, err error) {
	var flushed, confirmed, restart string
	err = conn.QueryRow(ctx, standingSQL, slot).Scan(&flushed, &s.Exists, &s.Active, &s.Plugin, &s.Database, &s.WALStatus,
		&confirmed, &restart, &s.SafeBytes)
	if err != nil {
		return s, fmt.Errorf("look at slot %s: %w", slot, err)
	}
	for _, field := range []struct {
		lsn  *events.LSN
		text string
	}{{&s.Flushed, flushed}, {&s.Confirmed, confirmed}, {&s.Restart, restart}} {
		if *field.lsn, err = events.ParseLSN(field.text); err != nil {
			return s, fmt.Errorf("look at slot %s: %w", slot, err)
		}
	}
	return s, nil
}

// Report is what of a database decides whether it can be read.
type Report struct {
	Place        string // host:port/database
	Database     string
	Version      int    // as server_version_num has it
	VersionName  string // such as 17.2
	WALLevel     string
	Standby      bool
	Role         string
	Replicates   bool // the role may
	MaxSenders   int
	Senders      int // in use
	MaxSlots     int
	Slots        int // that there are
	LogicalSlots int // of them: ours decode the same log
	Standing     Standing
	Publication  bool // there is one
	Owned        bool // it belongs to the role, so that tables can be added
	Open         bool // tables may match that are still to be made
	Tables       []TableReport
	Columns      error // what is wrong with Exclude and Masks, as ingest would refuse it
}

// TableReport is one table that sources[].tables names.
type TableReport struct {
	Schema, Name string
	Published    bool // by the publication, by itself or with the table that it is a partition of
	Identifiable bool // published, its rows can be updated and deleted
	Full         bool // REPLICA IDENTITY FULL
	Readable     bool // for the snapshot
	Partitioned  bool // holds no rows of its own
}

// Supported tells whether the server's version is one that can be read.
func (r Report) Supported() bool { return r.Version >= oldestVersion }

const reportSQL = `
SELECT current_database()::text, current_setting('server_version_num')::int, current_setting('server_version'), current_setting('wal_level'),
       pg_is_in_recovery(), current_user::text, (SELECT rolreplication OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user),
       current_setting('max_wal_senders')::int, (SELECT count(*) FROM pg_catalog.pg_stat_get_wal_senders() w),
       current_setting('max_replication_slots')::int, (SELECT count(*) FROM pg_catalog.pg_replication_slots),
       (SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE slot_type = 'logical')`

// Inspect looks at a database as a source with these options would read it, and changes nothing. Of the options, Name,
// ConnString, Tables, Exclude, Masks, Slot and Publication count.
func Inspect(ctx context.Context, o Options) (Report, error) {
	o.Partitions, o.MaxEvent = max(o.Partitions, 1), 0
	source, err := New(o)
	if err != nil {
		return Report{}, err
	}
	r := &run{Source: source, query: newQuerier(source.openQuery)}
	defer r.query.close(ctx)
	report := Report{Place: source.connector.place(), Open: source.patterns.open()}
	err = r.query.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		err := conn.QueryRow(ctx, reportSQL).Scan(&report.Database, &report.Version, &report.VersionName, &report.WALLevel, &report.Standby,
			&report.Role, &report.Replicates, &report.MaxSenders, &report.Senders, &report.MaxSlots, &report.Slots, &report.LogicalSlots)
		if err != nil || !report.Supported() {
			return err
		}
		report.Standing, err = stand(ctx, conn, o.Slot)
		return err
	})
	if err != nil || !report.Supported() {
		return report, err
	}
	publication, err := r.readPublication(ctx)
	if err != nil {
		return report, err
	}
	report.Publication, report.Owned = publication != nil, publication != nil && publication.own
	tables, err := r.matching(ctx)
	if err != nil {
		return report, err
	}
	lacking := make(map[uint32]bool)
	for _, t := range r.lacking(tables) {
		lacking[t.OID] = true
	}
	for _, t := range tables {
		const full = "f"
		published := publication != nil && (publication.all || !lacking[t.OID])
		report.Tables = append(report.Tables, TableReport{t.Schema, t.Name, published, t.Identifiable, t.Identity == full, t.Readable, t.Partitioned})
	}
	if _, err := r.checkRules(ctx); errors.Is(err, ingest.ErrRefused) {
		report.Columns = err
	} else if err != nil {
		return report, err
	}
	return report, nil
}
