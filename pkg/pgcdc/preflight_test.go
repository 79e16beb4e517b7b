package pgcdc

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// checkRefused checks that err is final, one line, and says what want, a regular expression, says.
func checkRefused(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case !errors.Is(err, ingest.ErrRefused):
		t.Errorf("got %v, want a refusal", err)
	case strings.Contains(err.Error(), "\n"):
		t.Errorf("more than a line: %s", err)
	case !regexp.MustCompile(want).MatchString(err.Error()):
		t.Errorf("got %s, want it to match %s", err, want)
	}
}

// as gives the database's URL for another user, password or database; empty leaves what it is.
func as(t *testing.T, db *database, user, password, name string) string {
	t.Helper()
	u, err := url.Parse(db.url)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		u.User = url.UserPassword(user, password)
	}
	if name != "" {
		u.Path = "/" + name
	}
	return u.String()
}

func TestAFirstStartIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		sql    string
		option func(*Options)
		want   string
	}{
		"no table of those": {`CREATE TABLE a (id int PRIMARY KEY)`, func(o *Options) { o.Tables = []string{"public.x", "other.y"} }, `no table of .* matches sources\[\].tables \(public\.x, other\.y\)`},
		"no identity":       {`CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE "B" (id int)`, nil, `public\.B would refuse every UPDATE and DELETE.*ALTER TABLE "public"\."B" REPLICA IDENTITY FULL`},
		"identity nothing":  {`CREATE TABLE a (id int PRIMARY KEY); ALTER TABLE a REPLICA IDENTITY NOTHING`, nil, `public\.a would refuse`},
		"a deferrable key":  {`CREATE TABLE a (id int PRIMARY KEY DEFERRABLE)`, nil, `public\.a would refuse`},
		"a slot that is there": {`CREATE TABLE a (id int PRIMARY KEY)|SELECT pg_create_logical_replication_slot('tributary_shop', 'pgoutput')`, nil,
			`slot tributary_shop exists already.*pg_drop_replication_slot\('tributary_shop'\)`},
		"another's publication, for other tables": {`CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE b; ALTER PUBLICATION p OWNER TO pg_monitor`,
			func(o *Options) { o.Publication, o.Tables = "p", []string{"public.a"} }, `publication p has none of the tables`},
	} {
		t.Run(name, func(t *testing.T) {
			db := newDatabase(t, pgtest.Database(t))
			for _, sql := range strings.Split(c.sql, "|") {
				db.exec(sql)
			}
			option := c.option
			if option == nil {
				option = func(*Options) {}
			}
			s := newStore(t)
			checkRefused(t, s.start(db.source(option), 0).wait(), c.want)
			if s.marks > 0 {
				t.Error("a position was stored")
			}
		})
	}
}

func TestRightsAreChecked(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	role := "role_" + strings.ToLower(db.value(`SELECT current_database()`))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY); CREATE ROLE ` + role + ` LOGIN`)
	t.Cleanup(func() { db.exec(`DROP OWNED BY ` + role + `; DROP ROLE ` + role) })
	source := func() *Source {
		return db.source(withSnapshot, func(o *Options) { o.ConnString = as(t, db, role, "", "") })
	}
	checkRefused(t, newStore(t).start(source(), 0).wait(), `role `+role+` may not replicate.*ALTER ROLE "`+role+`" REPLICATION`)
	db.exec(`ALTER ROLE ` + role + ` REPLICATION`)
	checkRefused(t, newStore(t).start(source(), 0).wait(), `permission denied.*CREATE PUBLICATION "tributary_shop" FOR TABLE ONLY "public"."a"`)
	db.exec(`CREATE PUBLICATION tributary_shop FOR TABLE a; REVOKE ALL ON a FROM ` + role)
	checkRefused(t, newStore(t).start(source(), 0).wait(), `may not read public\.a`)
	db.exec(`GRANT SELECT ON a TO ` + role + `; ALTER TABLE a ENABLE ROW LEVEL SECURITY`)
	checkRefused(t, newStore(t).start(source(), 0).wait(), `may not read public\.a.*BYPASSRLS`)
	db.exec(`ALTER TABLE a DISABLE ROW LEVEL SECURITY; INSERT INTO a VALUES (1)`)
	newStore(t).start(source(), 0).events(1)
}

func TestTheFirstContactTellsWhatIsMisconfigured(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
	wrong := func(connString string) *Source {
		return db.source(func(o *Options) { o.ConnString = connString })
	}
	checkRefused(t, newStore(t).start(wrong(as(t, db, "", "", "nowhere")), 0).wait(), `database "nowhere" does not exist`)
	checkRefused(t, newStore(t).start(wrong(as(t, db, "nobody", "secret", "")), 0).wait(), `role "nobody" does not exist`)
	away := newStore(t).start(wrong("postgres://127.0.0.1:1/x"), 0).wait()
	if away == nil || errors.Is(away, ingest.ErrRefused) {
		t.Errorf("a server that is away gives %v, want an error that is tried again", away)
	}
}

func TestServerSettingsAreChecked(t *testing.T) {
	for setting, c := range map[string]struct{ value, want string }{
		"wal_level":             {"replica", `wal_level of .* is replica: ALTER SYSTEM SET wal_level = 'logical', and restart`},
		"max_replication_slots": {"0", `max_replication_slots`},
	} {
		t.Run(setting, func(t *testing.T) {
			server := pgtest.Server(t, map[string]string{setting: c.value})
			db := newDatabase(t, server.URL("postgres"))
			db.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
			checkRefused(t, newStore(t).start(db.source(), 0).wait(), c.want)
		})
	}
}

func TestGoingOnIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		sql    string
		change func(*ingest.State)
		option func(*Options)
		want   string
	}{
		"without the slot":        {sql: `SELECT pg_drop_replication_slot('tributary_shop')`, want: `slot tributary_shop is gone.*tributary snapshot --reset shop`},
		"without the publication": {sql: `DROP PUBLICATION tributary_shop`, want: `publication tributary_shop was dropped`},
		"behind an advanced slot": {sql: `INSERT INTO a VALUES (2); SELECT pg_replication_slot_advance('tributary_shop', pg_current_wal_lsn())`,
			want: `the changes between .* and .* are gone`},
		"with another slot":     {option: func(o *Options) { o.Slot = "another" }, want: `reads slot tributary_shop`},
		"on another system":     {change: func(s *ingest.State) { s.Position.SystemID = "1" }, want: `has read 1:`},
		"on a strange timeline": {change: func(s *ingest.State) { s.Position.Timeline = 7 }, want: `does not come from timeline 7`},
		"on a restored server":  {change: func(s *ingest.State) { s.Through += 1 << 40 }, want: `it was restored, or took over without them`},
		"in an unknown phase":   {change: func(s *ingest.State) { s.Position.Phase = "resting" }, want: `the phase "resting"`},
	} {
		t.Run(name, func(t *testing.T) {
			db := newDatabase(t, pgtest.Database(t))
			db.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
			s := newStore(t)
			r := s.start(db.source(), 0)
			r.streaming()
			db.exec(`INSERT INTO a VALUES (1)`)
			r.events(1)
			waitFor(t, "the slot to be free", func() bool {
				return db.value(`SELECT active::text FROM pg_replication_slots WHERE slot_name = 'tributary_shop'`) == "false"
			})
			if c.sql != "" {
				for _, statement := range strings.Split(c.sql, "; ") {
					db.exec(statement)
				}
			}
			if c.change != nil {
				c.change(&s.state)
			}
			option := c.option
			if option == nil {
				option = func(*Options) {}
			}
			checkRefused(t, s.start(db.source(option), 0).wait(), c.want)
		})
	}
}

func TestASlotThatAnotherReadsIsTriedAgain(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
	s := newStore(t)
	first := s.start(db.source(), 0)
	first.streaming()
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	pid := readSlot(t, db, "tributary_shop", "tributary_shop")
	second := newStore(t)
	second.state = s.where()
	err := second.start(db.source(), 0).wait()
	if err == nil || errors.Is(err, ingest.ErrRefused) || !strings.Contains(err.Error(), "process "+pid) {
		t.Errorf("got %v, want an error that is tried again and names process %s", err, pid)
	}
}

func TestTheEarlierLeadersReadingIsEnded(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
	s := newStore(t)
	first := s.start(db.source(), 0)
	first.streaming()
	second := newStore(t)
	second.state = s.where()
	second.start(db.source(), 0).streaming()
	if err := first.wait(); err == nil || errors.Is(err, ingest.ErrRefused) {
		t.Errorf("the earlier one ended with %v, want an error that is tried again", err)
	}
}

// readSlot reads a slot as a stranger until the test ends, and gives the server's process.
func readSlot(t *testing.T, db *database, slot, publication string) (pid string) {
	t.Helper()
	config, err := pgconn.ParseConfig(db.url)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	conn.Frontend().Send(&pgproto3.Query{String: fmt.Sprintf(`START_REPLICATION SLOT %s LOGICAL 0/0 (proto_version '1', publication_names '%s')`, slot, publication)})
	if err := conn.Frontend().Flush(); err != nil {
		t.Fatal(err)
	}
	pid = fmt.Sprint(conn.PID())
	waitFor(t, "the stranger to read", func() bool {
		return db.value(`SELECT max(active_pid)::text FROM pg_replication_slots WHERE database = current_database()`) == pid
	})
	return pid
}

func TestASetUpThatWasCutOffIsDoneAgain(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1)`)
	s := newStore(t)
	s.state.Position.Incarnation = 3
	s.start(db.source(withSnapshot), 0).events(1)
	waitFor(t, "the slot to be free", func() bool { return db.value(`SELECT count(active_pid)::text FROM pg_replication_slots`) == "0" })
	again := newStore(t)
	again.state.Position = s.where().Position
	again.state.Position.Phase = ingest.PhaseSetup
	got := again.start(db.source(withSnapshot), 0).events(1)
	if again.where().Position.Incarnation != 4 || !strings.HasPrefix(got[0].ID, "shop-4-") {
		t.Errorf("incarnation %d, id %s", again.where().Position.Incarnation, got[0].ID)
	}
}

func TestTimelinesAreFollowed(t *testing.T) {
	history, err := parseHistory([]byte("1\t0/3000110\tno recovery target specified\n\n2\tA/10\tbefore 2026-11-23\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		timeline int32
		through  events.LSN
		ok       bool
	}{
		"all was taken over":         {1, 0x3000110, true},
		"the end was not taken over": {1, 0x3000111, false},
		"from the one before":        {2, 0xA_0000_0010, true},
		"from an unknown one":        {4, 1, false},
		"the same":                   {3, 0xB_0000_0000, true},
		"the same, restored":         {3, 0xB_0000_0001, false},
	} {
		t.Run(name, func(t *testing.T) {
			source, err := New(Options{Name: "shop", ConnString: "postgres://localhost/x", Tables: []string{"public.*"}, Partitions: 1})
			if err != nil {
				t.Fatal(err)
			}
			r := &run{Source: source, state: ingest.State{Position: ingest.Position{SystemID: "9", Timeline: c.timeline}, Through: c.through}}
			err = r.checkSystem(&system{id: "9", timeline: 3, flushed: 0xB_0000_0000, history: history})
			if (err == nil) != c.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestPatternsMatch(t *testing.T) {
	for pattern, c := range map[string]struct{ yes, no []string }{
		"public.*":      {[]string{"public.a", "public.a.b", "public."}, []string{"publi.a", "public2.a"}},
		"*.orders":      {[]string{"a.orders", "public.orders"}, []string{"a.orders2", "tributary.orders", "pg_toast.orders", "information_schema.orders"}},
		"app_*.or*e*s":  {[]string{"app_1.orders", "app_.ores", "app_x.orees"}, []string{"app_1.order", "app_1.ors", "app.orders"}},
		"public.orders": {[]string{"public.orders"}, []string{"public.Orders", "public.orders2"}},
		"*.*a*a*":       {[]string{"x.aa", "x.banana"}, []string{"x.a", "x.b"}},
	} {
		p, err := parsePatterns([]string{pattern})
		if err != nil {
			t.Fatal(err)
		}
		check := func(names []string, want bool) {
			for _, name := range names {
				schema, table, _ := strings.Cut(name, ".")
				if p.match(schema, table) != want {
					t.Errorf("%s matches %s: %v", pattern, name, !want)
				}
			}
		}
		check(c.yes, true)
		check(c.no, false)
	}
}

func TestOptionsNameTheirKey(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"name":        {func(o *Options) { o.Name = "Shop" }, `sources[].name: "Shop"`},
		"slot":        {func(o *Options) { o.Slot = "a-b" }, `sources[shop].slot: "a-b"`},
		"tables":      {func(o *Options) { o.Tables = []string{"orders"} }, `sources[shop].tables: "orders"`},
		"no tables":   {func(o *Options) { o.Tables = nil }, `sources[shop].tables: at least one`},
		"partitions":  {func(o *Options) { o.Partitions = 0 }, `events.partitions`},
		"heartbeat":   {func(o *Options) { o.Heartbeat = -1 }, `sources[shop].heartbeat`},
		"connections": {func(o *Options) { o.ConnString = "postgres://u:secret@h:x/" }, `sources[shop].postgres`},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{Name: "shop", ConnString: "postgres://localhost/x", Tables: []string{"public.*"}, Partitions: 1}
			c.change(&o)
			_, err := New(o)
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want %s…", err, c.want)
			}
		})
	}
}
