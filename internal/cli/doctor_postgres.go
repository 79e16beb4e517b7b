package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/config"
	"github.com/tributary-dev/tributary/pkg/checkpoint"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
	"github.com/tributary-dev/tributary/pkg/pgcdc"
)

// inspectWithin bounds the look at one database.
const inspectWithin = 8 * time.Second

// Checks that apply makes, too.
const (
	checkDatabase = "database"
	checkIdentity = "replica identity"
)

// postgres checks the database of a source; d is nil where NATS is not asked.
func (x *examination) postgres(ctx context.Context, d *deployment, source config.Source) {
	area := "source " + source.Name
	url, err := source.Postgres.Resolve()
	if err != nil {
		x.add(area, "secret", fails, "set it where this command runs, too", "postgres %v", err)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, inspectWithin)
	defer cancel()
	report, err := pgcdc.Inspect(ctx, pgcdc.Options{
		Name: source.Name, ConnString: url, Tables: source.Tables, Slot: source.Slot, Publication: source.Publication,
		Exclude: source.Exclude, Masks: source.Mask, MaskKey: unused(source.MaskKey),
	})
	if err != nil {
		x.add(area, checkDatabase, fails, "start PostgreSQL, or correct sources[].postgres", "%v", err)
		return
	}
	if !report.Supported() {
		x.add(area, "version", fails, "upgrade to PostgreSQL 14 or later", "%s is PostgreSQL %s", report.Place, report.VersionName)
		return
	}
	x.add(area, "version", passes, "", "PostgreSQL %s at %s", report.VersionName, report.Place)
	x.server(area, &report)
	x.slot(area, source, &report)
	if d != nil {
		x.position(ctx, d, source, url)
	}
	x.publication(area, source, &report)
	x.tables(area, source.Name, &report)
	if report.Columns != nil {
		x.add(area, "masks", fails, "correct sources[].mask or sources[].exclude", "%v", report.Columns)
	} else if len(source.Exclude)+len(source.Mask) > 0 {
		x.add(area, "masks", passes, "", "every column that is named is there")
	}
}

// unused stands for a key that need not be known here.
func unused(key config.Secret) []byte {
	if key.Empty() {
		return nil
	}
	return []byte("not the key, which need not be here")
}

// server checks settings and rights.
func (x *examination) server(area string, r *pgcdc.Report) {
	if r.WALLevel == "logical" {
		x.add(area, "wal_level", passes, "", "logical")
	} else {
		x.add(area, "wal_level", fails, "ALTER SYSTEM SET wal_level = 'logical', and restart PostgreSQL", "%s", r.WALLevel)
	}
	if r.Replicates {
		x.add(area, "rights", passes, "", "role %s may replicate", r.Role)
	} else {
		x.add(area, "rights", fails, "ALTER ROLE "+pgx.Identifier{r.Role}.Sanitize()+" REPLICATION", "role %s may not replicate", r.Role)
	}
	if !r.Standing.Exists && r.Slots >= r.MaxSlots {
		x.add(area, "slots", fails, fmt.Sprintf("drop one that nobody reads, or ALTER SYSTEM SET max_replication_slots = %d, and restart", max(2*r.MaxSlots, 10)),
			"all %d slots are in use", r.MaxSlots)
	}
	if !r.Standing.Active && r.Senders >= r.MaxSenders {
		x.add(area, "senders", fails, fmt.Sprintf("ALTER SYSTEM SET max_wal_senders = %d, and restart", max(2*r.MaxSenders, 10)),
			"all %d WAL senders are in use", r.MaxSenders)
	}
}

// slot checks what keeps the changes.
func (x *examination) slot(area string, source config.Source, r *pgcdc.Report) {
	s := r.Standing
	const lost = "the changes since its end are gone: tributary snapshot --reset starts over with a new slot and snapshot"
	switch {
	case !s.Exists:
		x.add(area, "slot", warns, "ingest makes it at its first start; if it was there before, changes are lost", "there is no slot %s", source.Slot)
		return
	case s.Plugin != "pgoutput" || s.Database != r.Database:
		x.add(area, "slot", fails, "name another in sources[].slot", "%s reads database %s by plugin %s, not %s by pgoutput", source.Slot, s.Database, s.Plugin, r.Database)
		return
	case s.WALStatus == "lost":
		x.add(area, "slot", fails, lost, "%s is lost: PostgreSQL removed its WAL (max_slot_wal_keep_size)", source.Slot)
		return
	case s.WALStatus == "unreserved":
		x.add(area, "slot", fails, "let ingest catch up at once, or raise max_slot_wal_keep_size", "%s is about to be lost", source.Slot)
	case !s.Active:
		x.add(area, "slot", warns, "start ingest: PostgreSQL keeps WAL for it meanwhile", "nobody reads from %s", source.Slot)
	default:
		x.add(area, "slot", passes, "", "%s is read, %s, confirmed to %s", source.Slot, s.WALStatus, s.Confirmed)
	}
	const much = 10 << 30
	allowed := int64(x.in.Config.Ingest.RewindBytes)
	kept := s.Retained()
	const remedy = "see whether ingest keeps up (tributary status), and whether a long transaction is open"
	switch {
	case s.SafeBytes >= 0 && s.SafeBytes < kept/4:
		x.add(area, "retained WAL", warns, remedy, "%s are kept, and the slot is lost after %s more", size(kept), size(s.SafeBytes))
	case kept > 2*allowed+much:
		x.add(area, "retained WAL", fails, remedy, "%s are kept", size(kept))
	case kept > 2*allowed+much/10:
		x.add(area, "retained WAL", warns, remedy, "%s are kept", size(kept))
	default:
		x.add(area, "retained WAL", passes, "", "%s", size(kept))
	}
}

// position checks that ingest can go on where EVENTS, the slot and the mirror are. The text is the one with which it would
// refuse: it has the way out.
func (x *examination) position(ctx context.Context, d *deployment, source config.Source, url string) {
	area := "source " + source.Name
	var state ingest.State
	err := pgcdc.WouldRefuse(ctx, pgcdc.Options{
		Name: source.Name, ConnString: url, Tables: source.Tables, Slot: source.Slot, Publication: source.Publication, Snapshot: source.Snapshot,
	}, func(ctx context.Context) (_ ingest.State, err error) {
		state, err = d.where(ctx, source, x.in.Config.Ingest.Checkpoints)
		return state, err
	})
	switch {
	case errors.Is(err, ingest.ErrRefused):
		x.add(area, "position", fails, "what the line says, which is what ingest ends with", "%v", err)
	case err != nil:
		x.add(area, "position", warns, "try again once all of it answers", "it can't be told whether ingest can go on: %v", err)
	case state.Position.Phase == "":
		x.add(area, "position", passes, "", "none yet")
	default:
		x.add(area, "position", passes, "", "EVENTS holds all that commits before %s, and the slot has what comes then", state.Through)
	}
}

// where is how far a source is stored, and what its mirror knows of it.
func (d *deployment) where(ctx context.Context, source config.Source, mirrored bool) (state ingest.State, err error) {
	var saved ingest.Position
	if mirrored {
		store, _, err := mirrorOf(source)
		if err != nil {
			return state, err
		}
		defer store.Close()
		saved, err = known(ctx, store, source.Name)
		if err != nil && !errors.Is(err, checkpoint.ErrRights) {
			return state, err
		}
	}
	stream, err := d.JS.Stream(ctx, events.StreamEvents)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return ingest.State{Mirrored: saved}, nil
	}
	if err != nil {
		return state, fmt.Errorf("open EVENTS: %w", err)
	}
	state, err = ingest.Where(ctx, d.nc, stream, source.Name, saved.Incarnation)
	state.Mirrored = saved
	return state, err
}

// publication checks that what sources[].tables names is published.
func (x *examination) publication(area string, source config.Source, r *pgcdc.Report) {
	name := pgx.Identifier{source.Publication}.Sanitize()
	if !r.Publication {
		x.add(area, "publication", warns, "ingest makes it at its first start", "there is no publication %s", source.Publication)
		return
	}
	var lacking, quoted []string
	for _, t := range r.Tables {
		if !t.Published {
			lacking = append(lacking, t.Schema+"."+t.Name)
			quoted = append(quoted, pgx.Identifier{t.Schema, t.Name}.Sanitize())
		}
	}
	switch {
	case len(r.Tables) == 0:
		x.add(area, "publication", warns, "create the tables, or correct sources[].tables", "no table matches %s", strings.Join(source.Tables, ", "))
	case len(lacking) > 0:
		remedy := "ALTER PUBLICATION " + name + " ADD TABLE " + strings.Join(quoted, ", ")
		if r.Owned {
			remedy += "; ingest does it at its next start"
		}
		x.add(area, "publication", warns, remedy, "%s lacks %s: their changes are not read", source.Publication, few(lacking))
	default:
		x.add(area, "publication", passes, "", "%s has %s", source.Publication, count(len(r.Tables), "table", "tables"))
	}
}

// tables checks replica identities and rights.
func (x *examination) tables(area, source string, r *pgcdc.Report) {
	var refusing, unidentified, partial, unreadable []string
	for _, t := range r.Tables {
		name := pgx.Identifier{t.Schema, t.Name}.Sanitize()
		if t.Partitioned {
			continue
		}
		switch {
		case !t.Identifiable && t.Published:
			refusing = append(refusing, name)
		case !t.Identifiable:
			unidentified = append(unidentified, name)
		}
		if !t.Readable {
			unreadable = append(unreadable, name)
		}
		if !t.Full && x.asksForChange(events.Address{Source: source, Schema: t.Schema, Table: t.Name, Op: events.OpUpdate}) {
			partial = append(partial, name)
		}
	}
	const orElse = "; or give each a primary key, or leave it out of sources[].tables"
	if len(refusing) > 0 {
		x.add(area, checkIdentity, fails, identifyFull(refusing)+orElse,
			"PostgreSQL refuses every UPDATE and DELETE of %s now: published, without a primary key or a replica identity", few(refusing))
	}
	if len(unidentified) > 0 {
		x.add(area, checkIdentity, fails, identifyFull(unidentified)+orElse,
			"published, %s would refuse every UPDATE and DELETE", few(unidentified))
	}
	if len(partial) > 0 {
		x.add(area, checkIdentity, fails, identifyFull(partial),
			"observers use changed() on updates of %s, which come without their old row", few(partial))
	}
	if len(refusing)+len(unidentified)+len(partial) == 0 && len(r.Tables) > 0 {
		x.add(area, checkIdentity, passes, "", "as the observers need it")
	}
	if len(unreadable) > 0 {
		x.add(area, "rights", warns, "GRANT SELECT ON "+strings.Join(unreadable, ", ")+" TO "+pgx.Identifier{r.Role}.Sanitize(),
			"role %s may not read %s, which a snapshot has to", r.Role, few(unreadable))
	}
}

// asksForChange tells whether an observer of such updates has to know the old row.
func (x *examination) asksForChange(a events.Address) bool {
	if x.rules == nil {
		return false
	}
	for _, o := range x.rules.Observers() {
		if o.Concerns(a) && o.AsksForChange() {
			return true
		}
	}
	return false
}

// identifyFull gives the statements that let tables be updated, and their old rows be read.
func identifyFull(tables []string) string {
	statements := make([]string, len(tables))
	for i, table := range tables {
		statements[i] = "ALTER TABLE " + table + " REPLICA IDENTITY FULL"
	}
	return strings.Join(statements, "; ")
}

// few lists the first of many.
func few(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
}
