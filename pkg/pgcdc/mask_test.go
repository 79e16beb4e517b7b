package pgcdc

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

const maskKey = "a key of the masks, of enough bytes"

func hashed(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func keyed(text string) string {
	h := hmac.New(sha256.New, []byte(maskKey))
	h.Write([]byte(text))
	return hex.EncodeToString(h.Sum(nil))
}

// everything gathers all that leaves a source: events, subjects, positions, images that were too large, logs.
type everything struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (e *everything) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.text.Write(p)
}

func (e *everything) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.text.String()
}

var base64Text = regexp.MustCompile(`[A-Za-z0-9+/=]{4,}`)

func (e *everything) of(s *store) {
	for _, event := range s.all() {
		fmt.Fprintln(e, event.ID, event.Subject, event.Data)
	}
	for _, p := range s.positions() {
		fmt.Fprintf(e, "%+v %s\n", p, p.Cursor)
		for _, text := range base64Text.FindAll(p.Cursor, -1) { // as bytes are in JSON
			decoded, _ := base64.StdEncoding.AppendDecode(nil, text)
			fmt.Fprintf(e, "%s\n", decoded)
		}
	}
}

func TestNothingOfAMaskedColumnLeaves(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	large := `'SECRET' || (SELECT string_agg(md5(n::text), 'SECRET') FROM generate_series(1, 200) n)`
	db.exec(`CREATE TYPE pair AS (a int, b text);
		CREATE TABLE users (email text, n int, phone text, tags text[], home pair, ssn text, doc text, PRIMARY KEY (email, n));
		INSERT INTO users SELECT 'SECRET' || n, n, 'SECRET', '{SECRET,a}', '(1,SECRET)', 'SECRET', ` + large + ` FROM generate_series(1, 2000) n;
		CREATE TABLE logs (ssn text, "an. odd" text, n int); ALTER TABLE logs REPLICA IDENTITY FULL`)
	var left everything
	source := db.source(withSnapshot, func(o *Options) {
		o.Exclude = []string{"*.ssn"}
		o.Masks = map[string]string{"users.email": "hmac", "public.users.phone": "redact", "users.tags": "sha256", "users.home": "hmac", "users.doc": "sha256",
			`logs."an. odd"`: "redact", "later.email?": "sha256"}
		o.MaskKey = []byte(maskKey)
		o.Log = slog.New(slog.NewTextHandler(&left, &slog.HandlerOptions{Level: slog.LevelDebug}))
		o.MaxEvent = 2000
		o.Oversize = func(_ context.Context, id string, envelope []byte) error {
			_, err := fmt.Fprintf(&left, "%s %s\n", id, envelope)
			return err
		}
		o.Keep = func(c *Candidate) (bool, error) { // as an expression that quotes what it fails for
			return true, errors.New(string(c.Envelope))
		}
	})
	s := newStore(t)
	for s.where().Position.Phase != ingest.PhaseStreaming || s.where().Position.Cursor != nil { // cut off, so that cursors are made and used
		s.step(source, 3)
	}
	rows := s.count()
	if rows != 2000 {
		t.Errorf("%d rows of the snapshot, want 2000", rows)
	}
	r := s.startConfirming(source, 0, nothing)
	db.exec(`UPDATE users SET n = -1, phone = 'SECRET2' WHERE n = 7`)
	db.exec(`UPDATE users SET phone = NULL, doc = 'SECRET' WHERE n = -1`)
	db.exec(`DELETE FROM users WHERE n = 8`)
	db.exec(`INSERT INTO logs VALUES ('SECRET', 'SECRET', 1); UPDATE logs SET ssn = 'SECRET3'; UPDATE logs SET "an. odd" = 'SECRET4'; DELETE FROM logs`)
	db.exec(`INSERT INTO users VALUES ('SECRET', 9000, repeat('SECRET', 1000), ARRAY[repeat('SECRET', 1000)])`)
	db.exec(`CREATE TABLE later (email text PRIMARY KEY); INSERT INTO later SELECT 'SECRET' || n FROM generate_series(1, 2000) n`)
	r.until("the rows of the new table", func(s *store) bool {
		n := 0
		for _, e := range s.all()[rows:] {
			if strings.Contains(e.Data, `"op":"snapshot"`) {
				n++
			}
		}
		return n == 2000
	})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	left.of(s)
	if text := left.String(); strings.Contains(text, "SECRET") {
		at := strings.Index(text, "SECRET")
		t.Errorf("a masked value left: …%s…", text[max(0, at-300):min(len(text), at+100)])
	}
	all := s.all()
	first, changed := all[0], all[rows]
	key := func(email string, n int) string { return fmt.Sprintf(`key {"email":"%s","n":%d}`, keyed(email), n) }
	docs := db.value(`SELECT encode(sha256(doc::bytea), 'hex') FROM users WHERE n = 1`)
	checkData(t, []stored{first, changed, all[rows+1], all[rows+2]},
		`op "snapshot" schema "public" table "users" `+key("SECRET1", 1)+` after {"email":"`+keyed("SECRET1")+`","n":1,"phone":"[redacted]","tags":"`+hashed("{SECRET,a}")+
			`","home":"`+keyed("(1,SECRET)")+`","doc":"`+docs+`"}`,
		`op "update" schema "public" table "users" `+key("SECRET7", -1)+` before {"email":"`+keyed("SECRET7")+`","n":7} after {"email":"`+keyed("SECRET7")+
			`","n":-1,"phone":"[redacted]","tags":"`+hashed("{SECRET,a}")+`","home":"`+keyed("(1,SECRET)")+`"} unchanged ["doc"] index 1 last`,
		`op "update" schema "public" table "users" `+key("SECRET7", -1)+` after {"email":"`+keyed("SECRET7")+`","n":-1,"phone":null,"tags":"`+hashed("{SECRET,a}")+
			`","home":"`+keyed("(1,SECRET)")+`","doc":"`+hashed("SECRET")+`"} index 1 last`,
		`op "delete" schema "public" table "users" `+key("SECRET8", 8)+` before {"email":"`+keyed("SECRET8")+`","n":8} index 1 last`,
	)
	checkData(t, all[rows+3:rows+7],
		`op "insert" schema "public" table "logs" after {"an. odd":"[redacted]","n":1} index 1`,
		`op "update" schema "public" table "logs" before {"an. odd":"[redacted]","n":1} after {"an. odd":"[redacted]","n":1} changed [] index 2`,
		`op "update" schema "public" table "logs" before {"an. odd":"[redacted]","n":1} after {"an. odd":"[redacted]","n":1} changed ["an. odd"] index 3`,
		`op "delete" schema "public" table "logs" before {"an. odd":"[redacted]","n":1} index 4 last`,
	)
	deleted, err := events.ParseAddress(all[rows+2].Subject)
	if want := events.Partition([]byte("public.users/"+keyed("SECRET8")+"/8"), 16); err != nil || deleted.Partition != want {
		t.Errorf("the delete is in partition %d, %v; want %d, that of the snapshot's row", deleted.Partition, err, want)
	}
}

func TestAMaskThatCanNotHoldIsRefused(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE users (id int PRIMARY KEY, email text); CREATE TABLE log (id int, at date, email text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
		CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')`)
	slot := 0
	for name, c := range map[string]struct {
		masks   map[string]string
		exclude []string
		want    string
	}{
		"a column with a typo":       {map[string]string{"users.emial": "sha256"}, nil, "users.emial"},
		"a table with a typo":        {map[string]string{"usrs.email": "sha256"}, nil, "usrs.email"},
		"a schema that has no table": {nil, []string{"other.users.email"}, "other.users.email"},
		"a key that is redacted":     {map[string]string{"users.id": "redact"}, nil, "column id of public.users"},
		"a key that is left out":     {nil, []string{"*.id"}, "column id of"},
		"a partition's key":          {nil, []string{"log.at"}, "column at of"},
		"a typo that may be":         {map[string]string{"users.emial?": "sha256", "*.none": "redact"}, nil, ""},
		"all that is there":          {map[string]string{"users.email": "sha256", "users.id": "sha256", "public.log.email": "redact", "log_1.email": "redact"}, []string{"log*.email"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			slot++
			source := db.source(func(o *Options) { o.Masks, o.Exclude, o.Slot = c.masks, c.exclude, fmt.Sprintf("slot_%d", slot) })
			s := newStore(t)
			r := s.start(source, 0)
			if c.want == "" {
				r.streaming()
				return
			}
			if err := r.wait(); !errors.Is(err, ingest.ErrRefused) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a refusal that names %s", err, c.want)
			}
		})
	}
}

func TestRulesForColumnsAreRead(t *testing.T) {
	for text, want := range map[string][3]string{
		"users.email":         {"*", "users", "email"},
		"public.users.email?": {"public", "users", "email"},
		`*."a.b"."c""d?"`:     {"*", "a.b", `c"d?`},
	} {
		rule, err := parseColumnRule(text)
		if got := [3]string{rule.schema.text, rule.table.text, rule.column.text}; err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", "?", "email", ".email", "users.", "a.b.c.d", `users."email`, `users."a"b`, `users.a"b"`, `users.""`} {
		if rule, err := parseColumnRule(text); err == nil {
			t.Errorf("%q is %+v", text, rule)
		}
	}
	for want, o := range map[string]Options{
		"mask_key must be set":              {Masks: map[string]string{"a.b": "hmac"}},
		"mask_key must have at least":       {Masks: map[string]string{"a.b": "hmac"}, MaskKey: []byte("short")},
		"must be sha256, hmac or redact":    {Masks: map[string]string{"a.b": "md5"}},
		`exclude: "b" is not [schema.]tabl`: {Exclude: []string{"b"}},
	} {
		if _, err := parseColumnRules(&o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestTheStrongestRuleHolds(t *testing.T) {
	rules, err := parseColumnRules(&Options{
		Masks: map[string]string{"*.*": "sha256", "t.b": "hmac", "t.c*": "redact", "t.d": "redact"}, Exclude: []string{"*.d"}, MaskKey: []byte(maskKey),
	})
	if err != nil {
		t.Fatal(err)
	}
	rel := newRelation(1, "public", "t", identityDefault)
	for _, name := range []string{"a", "b", "c", "d"} {
		rel.columns = append(rel.columns, newColumn(name, builtinTypes[25], false))
	}
	if err := newMasking(rules).apply(rel, owned{names: [][2]string{{"public", "t"}}}, nil); err != nil {
		t.Fatal(err)
	}
	for i, want := range []method{methodSHA256, methodHMAC, methodRedact} {
		if c := rel.columns[i]; c.hidden || c.mask == nil || c.mask.method != want {
			t.Errorf("column %s is %+v, want %s", c.name, c, want)
		}
	}
	if !rel.columns[3].hidden {
		t.Error("column d is not left out")
	}
}

func TestAColumnThatIsRenamedIsNotPublishedUnmasked(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE users (id int PRIMARY KEY, email text)`)
	masked := func(rules ...string) *Source {
		return db.source(func(o *Options) {
			o.Masks = map[string]string{}
			for _, rule := range rules {
				o.Masks[rule] = "sha256"
			}
		})
	}
	s := newStore(t)
	r := s.startConfirming(masked("users.email"), 0, nothing)
	r.streaming()
	db.exec(`INSERT INTO users VALUES (1, 'SECRET')`)
	r.until("an event", func(s *store) bool { return s.count() == 1 })
	db.exec(`ALTER TABLE users RENAME email TO mail`)
	db.exec(`INSERT INTO users VALUES (2, 'SECRET')`)
	for _, rules := range [][]string{nil, {"users.email"}} { // within the session, and at the start of the next one
		if rules != nil {
			r = s.startConfirming(masked(rules...), 0, nothing)
		}
		if err := r.wait(); !errors.Is(err, ingest.ErrRefused) || !strings.Contains(err.Error(), "users.email") {
			t.Fatalf("got %v, want a refusal that names the rule", err)
		}
	}
	r = s.startConfirming(masked("users.email?", "users.mail"), 0, nothing)
	checkData(t, r.events(2),
		`op "insert" schema "public" table "users" key {"id":1} after {"id":1,"email":"`+hashed("SECRET")+`"} index 1 last`,
		`op "insert" schema "public" table "users" key {"id":2} after {"id":2,"mail":"`+hashed("SECRET")+`"} index 1 last`,
	)
}

func TestMasksHoldForRelatives(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE log (id int PRIMARY KEY, email text, phone text) PARTITION BY RANGE (id); CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (0) TO (10);
		CREATE TABLE users (id int PRIMARY KEY, email text); CREATE TABLE members (PRIMARY KEY (id)) INHERITS (users);
		INSERT INTO log VALUES (1, 'SECRET', 'SECRET'); INSERT INTO members VALUES (1, 'SECRET');
		CREATE PUBLICATION given FOR TABLE log, ONLY users, ONLY members WITH (publish_via_partition_root = true)`)
	s := newStore(t)
	r := s.start(db.source(withSnapshot, func(o *Options) {
		o.Publication, o.Masks = "given", map[string]string{"log_1.email": "sha256", "log.phone": "redact", "users.email": "sha256"}
	}), 0)
	r.streaming()
	db.exec(`INSERT INTO log VALUES (2, 'SECRET', 'SECRET'); INSERT INTO members VALUES (2, 'SECRET')`)
	checkData(t, r.events(4),
		`op "snapshot" schema "public" table "log" key {"id":1} after {"id":1,"email":"`+hashed("SECRET")+`","phone":"[redacted]"}`,
		`op "snapshot" schema "public" table "members" key {"id":1} after {"id":1,"email":"`+hashed("SECRET")+`"}`,
		`op "insert" schema "public" table "log" key {"id":2} after {"id":2,"email":"`+hashed("SECRET")+`","phone":"[redacted]"} index 1`,
		`op "insert" schema "public" table "members" key {"id":2} after {"id":2,"email":"`+hashed("SECRET")+`"} index 2 last`,
	)
}

// keptInMemory is a Memory.
type keptInMemory struct {
	mu   sync.Mutex
	held map[string]map[string][]uint32
}

func (k *keptInMemory) Recall(_ context.Context, database string) (map[string][]uint32, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.held[database]), nil
}

func (k *keptInMemory) Keep(_ context.Context, database string, held map[string][]uint32) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.held[database] == nil {
		k.held = map[string]map[string][]uint32{database: {}}
	}
	for rule, oids := range held {
		k.held[database][rule] = append(k.held[database][rule], oids...)
	}
	return nil
}

func TestMasksHoldForTablesThatChange(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE SCHEMA moved; CREATE TABLE users (id int, email text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
		CREATE TABLE part_1 PARTITION OF users FOR VALUES FROM (0) TO (10); CREATE TABLE part_2 PARTITION OF users FOR VALUES FROM (10) TO (20);
		CREATE TABLE loose (id int PRIMARY KEY, email text); CREATE TABLE part_3 (id int PRIMARY KEY, email text)`)
	var memory keptInMemory
	source := db.source(func(o *Options) {
		o.Tables, o.Memory = []string{"public.*", "moved.*"}, &memory
		o.Masks = map[string]string{"users.email": "sha256", "public.loose.email": "sha256", "later.email?": "sha256"}
	})
	s := newStore(t)
	r := s.startConfirming(source, 0, nothing)
	r.streaming()
	begin := s.where()
	db.exec(`INSERT INTO users VALUES (1, 'SECRET'), (11, 'SECRET'); INSERT INTO loose VALUES (1, 'SECRET')`)
	db.exec(`ALTER TABLE loose SET SCHEMA moved`)
	db.exec(`INSERT INTO moved.loose VALUES (2, 'SECRET')`)
	db.exec(`ALTER TABLE moved.loose RENAME TO loser`)
	db.exec(`INSERT INTO moved.loser VALUES (3, 'SECRET')`)
	db.exec(`ALTER TABLE users ATTACH PARTITION part_3 FOR VALUES FROM (20) TO (30)`)
	db.exec(`INSERT INTO users VALUES (21, 'SECRET')`)
	r.until("the events", func(s *store) bool { return s.count() == 6 })
	db.exec(`ALTER TABLE users DETACH PARTITION part_2`)
	db.exec(`ALTER PUBLICATION tributary_shop ADD TABLE part_2`)
	db.exec(`INSERT INTO part_2 VALUES (12, 'SECRET')`)
	db.exec(`ALTER TABLE part_2 ALTER email TYPE varchar(20)`)
	db.exec(`INSERT INTO part_2 VALUES (13, 'SECRET')`)
	db.exec(`CREATE TABLE later (id int PRIMARY KEY, email text)`)
	db.exec(`ALTER PUBLICATION tributary_shop ADD TABLE later`)
	db.exec(`INSERT INTO later VALUES (1, 'SECRET')`)
	for _, e := range r.events(9) {
		if strings.Contains(e.Data, "SECRET") || !strings.Contains(e.Data, hashed("SECRET")) {
			t.Errorf("not masked: %s", e.Data)
		}
	}
	// The next session knows no more than what was kept.
	for _, statement := range []string{`INSERT INTO part_2 VALUES (14, 'SECRET')`, `ALTER TABLE users DETACH PARTITION part_3`,
		`INSERT INTO part_3 VALUES (22, 'SECRET')`, `INSERT INTO moved.loser VALUES (4, 'SECRET')`} {
		db.exec(statement)
	}
	restarted := db.source(func(o *Options) {
		o.Tables, o.Memory = []string{"public.*", "moved.*"}, &memory
		o.Masks = map[string]string{"users.email": "sha256", "public.loose.email?": "sha256", "later.email?": "sha256"}
	})
	for _, e := range s.startConfirming(restarted, 0, nothing).events(12)[9:] {
		if strings.Contains(e.Data, "SECRET") || !strings.Contains(e.Data, hashed("SECRET")) {
			t.Errorf("not masked after a restart: %s", e.Data)
		}
	}
	// A partition that was dropped since: nobody knows any more whose it was.
	db.exec(`DROP TABLE part_1`)
	again := newStore(t)
	again.state = begin
	for _, e := range again.startConfirming(db.source(func(o *Options) {
		o.Tables, o.Masks = []string{"public.*"}, map[string]string{"users.email": "sha256"}
	}), 1, nothing).events(1) {
		if strings.Contains(e.Data, "SECRET") || !strings.Contains(e.Data, hashed("SECRET")) {
			t.Errorf("not masked: %s", e.Data)
		}
	}
}
