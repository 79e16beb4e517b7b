package pgcdc

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/tributary-dev/tributary/pkg/ingest"
)

// publication is ours as it is on the server.
type publication struct {
	own        bool // our role owns it, so it is ours to alter
	identifies bool // it publishes updates or deletes, for which rows have to be identified
	viaRoot    bool // partitions' changes come under the name of their root
	all        bool // FOR ALL TABLES
}

// readPublication gives nil where there is none.
func (r *run) readPublication(ctx context.Context) (*publication, error) {
	p := new(publication)
	err := r.query.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		const question = `SELECT pubowner = (SELECT oid FROM pg_roles WHERE rolname = current_user), pubupdate OR pubdelete, pubviaroot, puballtables FROM pg_publication WHERE pubname = $1`
		return conn.QueryRow(ctx, question, r.opts.Publication).Scan(&p.own, &p.identifies, &p.viaRoot, &p.all)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read publication %s: %w", r.opts.Publication, err)
	}
	return p, nil
}

// ensurePublication makes the publication of the tables, or adds those that it lacks where it is ours. One that somebody
// else made decides itself what it publishes.
func (r *run) ensurePublication(ctx context.Context, tables []table) error {
	p, err := r.readPublication(ctx)
	if err != nil {
		return err
	}
	lacking := r.lacking(tables)
	if p == nil {
		if bad := unidentified(tables); len(bad) > 0 {
			return refuseUnidentified(bad)
		}
		statement := "CREATE PUBLICATION " + quoteIdent(r.opts.Publication)
		if len(lacking) > 0 {
			statement += " FOR " + tableList(lacking)
		}
		return r.alter(ctx, statement)
	}
	if p.own && !p.all && len(lacking) > 0 {
		if bad := unidentified(lacking); p.identifies && len(bad) > 0 {
			return refuseUnidentified(bad)
		}
		return r.alter(ctx, "ALTER PUBLICATION "+quoteIdent(r.opts.Publication)+" ADD "+tableList(lacking))
	}
	if len(tables) > 0 && len(lacking) == len(tables) {
		return refused("publication %s has none of the tables that sources[].tables names (%s): have its owner add them", r.opts.Publication, r.patterns)
	}
	if len(lacking) > 0 {
		r.opts.Log.Warn("the publication, which somebody else owns, lacks tables", "publication", r.opts.Publication, "tables", names(lacking))
	}
	return nil
}

// addTables adds what matches by now to our own publication. The stream has a table's changes from the moment at which it
// is published; the rows that it holds by then are read beside it (readings).
func (r *run) addTables(ctx context.Context) error {
	if r.state.Position.Phase == ingest.PhaseSnapshot {
		return nil // it goes on without them, and the stream behind it adds them
	}
	tables, err := r.matching(ctx)
	if err != nil {
		return err
	}
	lacking := r.lacking(tables)
	if len(lacking) == 0 {
		return nil
	}
	p, err := r.readPublication(ctx)
	if err != nil || p == nil || !p.own || p.all {
		return err
	}
	var sound []table
	for _, t := range lacking {
		if t.Partitioned || t.Identifiable || !p.identifies {
			sound = append(sound, t)
		}
	}
	if len(sound) > 0 {
		if err := r.publish(ctx, sound); err != nil {
			return err
		}
		if r.opts.Snapshot {
			r.opts.Log.Info("new tables are read from now on, with the rows that they hold", "tables", names(sound))
		} else {
			r.opts.Log.Warn("new tables are read from now on; what they held before is not", "tables", names(sound))
		}
	}
	if bad := unidentified(lacking); p.identifies && len(bad) > 0 {
		return refuseUnidentified(bad)
	}
	return nil
}

// lacking gives the tables that have to be named to be published; a partition is, with what it is a partition of.
func (r *run) lacking(tables []table) []table {
	var lacking []table
	for _, t := range tables {
		covered := t.Published
		for i := 0; i+1 < len(t.Ancestors); i += 2 {
			itself := t.Ancestors[i] == t.Schema && t.Ancestors[i+1] == t.Name
			covered = covered || !itself && r.patterns.match(t.Ancestors[i], t.Ancestors[i+1])
		}
		if !covered {
			lacking = append(lacking, t)
		}
	}
	return lacking
}

// tableList names tables as publications take them: ONLY keeps out what inherits from one, and is in the list itself if
// it matches.
func tableList(tables []table) string {
	texts := make([]string, len(tables))
	for i, t := range tables {
		texts[i] = "ONLY " + t.quoted()
		if t.Partitioned {
			texts[i] = t.quoted()
		}
	}
	return "TABLE " + strings.Join(texts, ", ")
}

func (r *run) alter(ctx context.Context, statement string) error {
	err := r.query.do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, statement)
		return err
	})
	if hasCode(err, codeDuplicateObject) {
		return nil // another was quicker
	}
	if err != nil {
		return explainRights(fmt.Errorf("alter publication %s: %w", r.opts.Publication, err), statement)
	}
	r.opts.Log.Info("publication changed", "publication", r.opts.Publication)
	return nil
}
