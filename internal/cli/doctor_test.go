package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/config"
	"github.com/tributary-dev/tributary/internal/pgtest"
)

// examined is what doctor says with -o json.
type examined struct {
	Checks           []check
	Failed, Warnings int
}

func (e examined) of(r result) []string {
	list := []string{}
	for _, c := range e.Checks {
		if c.Result == r {
			list = append(list, c.Area+", "+c.Check)
		}
		if c.Result != passes && c.Remedy == "" {
			list = append(list, c.Area+" lacks a remedy")
		}
	}
	return list
}

func (w *world) examine() (examined, error) {
	w.t.Helper()
	out, failure := w.run("doctor", "-o", "json")
	var e examined
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
	if (failure != nil) != (e.Failed > 0) || failure != nil && !errors.Is(failure, errUnhealthy) {
		w.t.Errorf("%d checks failed, and the command ends with %v", e.Failed, failure)
	}
	return e, failure
}

func TestDoctorFindsWhatIsWrongWithNATS(t *testing.T) {
	w := newWorld(t)
	w.config.Sources = nil
	e, err := w.examine()
	if err != nil || !slices.Equal(e.of(warns), []string{"config, sources", "workers, members"}) {
		t.Errorf("idle: %v, %v", e.of(warns), err)
	}
	stream, err := w.js.Stream(t.Context(), "EVENTS")
	if err != nil {
		t.Fatal(err)
	}
	changed := stream.CachedInfo().Config
	changed.MaxAge = 0
	if _, err := w.js.UpdateStream(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	if e, err = w.examine(); err != nil || !slices.Contains(e.of(warns), "stream EVENTS, settings") {
		t.Errorf("with another setting: %v, %v", e.of(warns), err)
	}
	if err := w.js.DeleteStream(t.Context(), "KV_jobs"); err != nil {
		t.Fatal(err)
	}
	if e, _ = w.examine(); !slices.Equal(e.of(fails), []string{"stream KV_jobs, exists"}) {
		t.Errorf("without a bucket: %v", e.of(fails))
	}
	if err := w.js.DeleteStream(t.Context(), "INBOX"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "INBOX", Subjects: []string{"publish.>"}, Storage: jetstream.MemoryStorage}); err != nil {
		t.Fatal(err)
	}
	if e, _ = w.examine(); !slices.Contains(e.of(fails), "stream INBOX, settings") {
		t.Errorf("on another storage: %v", e.of(fails))
	}
	w.server.Stop()
	if e, _ = w.examine(); !slices.Equal(e.of(fails), []string{"nats, connection"}) {
		t.Errorf("without NATS: %v", e.of(fails))
	}
}

func TestDoctorFindsWhatWaits(t *testing.T) {
	w, _ := settledWorld(t)
	e, err := w.examine()
	if err != nil || !slices.Contains(e.of(warns), "dead letters, count") || slices.Contains(e.of(warns), "workers, members") {
		t.Errorf("%v, %v", e.of(warns), err)
	}
	if out := w.must("doctor", "--quiet"); strings.Contains(out, "ok  ") || !strings.Contains(out, "tributary dlq list") {
		t.Errorf("quietly:\n%s", out)
	}
}

func TestDoctorFindsWhatIsWrongWithADatabase(t *testing.T) {
	w := newWorld(t)
	url := pgtest.Database(t)
	exec := pgtest.Exec(t, url)
	const slot = "doctor_test"
	w.config.Sources = []config.Source{{Name: "shop", Postgres: config.NewSecret(url), Tables: []string{"public.*"}, Slot: slot, Publication: "p"}}
	exec(`CREATE TABLE orders (id int PRIMARY KEY, status text)`)
	e, _ := w.examine()
	// The observer shipped uses changed(), and nobody has set the source up.
	if got := e.of(fails); !slices.Equal(got, []string{"source shop, replica identity"}) {
		t.Errorf("before: %v", got)
	}
	for _, want := range []string{"source shop, slot", "source shop, publication", "source shop, leader"} {
		if !slices.Contains(e.of(warns), want) {
			t.Errorf("before: %s is missing among %v", want, e.of(warns))
		}
	}
	if out := w.must("observers", "apply", w.config.Observers, "--dry-run"); !strings.Contains(out, "ALTER TABLE \"public\".\"orders\" REPLICA") {
		t.Errorf("apply does not tell of the old rows that are missing:\n%s", out)
	}
	exec(`ALTER TABLE orders REPLICA IDENTITY FULL; CREATE TABLE items (id int); CREATE PUBLICATION p FOR TABLE orders`)
	exec(`SELECT pg_create_logical_replication_slot('` + slot + `', 'pgoutput')`)
	e, _ = w.examine()
	// The identity is that of items now, and nobody knows what the slot has given away.
	if got := e.of(fails); !slices.Equal(got, []string{"source shop, position", "source shop, replica identity"}) {
		t.Errorf("with a bare table: %v", got)
	}
	for _, c := range e.Checks {
		if c.Check == "replica identity" && !strings.Contains(c.Remedy, `"items"`) || c.Check == "publication" && !strings.Contains(c.Remedy, `ADD TABLE "public"."items"`) {
			t.Errorf("%+v", c)
		}
	}
	// What is published already refuses writes now, and a remedy can be pasted however many it names.
	exec(`ALTER PUBLICATION p ADD TABLE items`)
	for i := range 6 {
		exec(fmt.Sprintf(`CREATE TABLE bare%d (id int)`, i))
	}
	e, _ = w.examine()
	said := func(what, remedy string) {
		t.Helper()
		if !slices.ContainsFunc(e.Checks, func(c check) bool { return strings.Contains(c.Detail, what) && strings.Contains(c.Remedy, remedy) }) {
			t.Errorf("nothing says %q with the remedy %q: %v", what, remedy, e.Checks)
		}
	}
	said(`refuses every UPDATE and DELETE of "public"."items" now`, `ALTER TABLE "public"."items" REPLICA IDENTITY FULL; or`)
	said(`would refuse every UPDATE and DELETE`, `; ALTER TABLE "public"."bare5" REPLICA IDENTITY FULL; or`)
	said(`their changes are not read`, `"public"."bare4", "public"."bare5"`)
	exec(`DROP TABLE items, bare0, bare1, bare2, bare3, bare4, bare5`)
	e, _ = w.examine()
	if got := e.of(fails); !slices.Equal(got, []string{"source shop, position"}) {
		t.Errorf("mended: %v", got)
	}
	if got := e.of(warns); !slices.Equal(got, []string{"source shop, leader", "workers, members", "source shop, slot"}) {
		t.Errorf("mended: %v", got)
	}
	w.config.Sources[0].Exclude, w.config.Sources[0].Mask = []string{"orders.status"}, config.Mask{"orders.stauts": "sha256"}
	e, _ = w.examine()
	if got := e.of(fails); !slices.Equal(got, []string{"source shop, position", "source shop, masks"}) {
		t.Errorf("with a mask of nothing: %v", got)
	}
	w.config.Sources[0].Exclude, w.config.Sources[0].Mask = nil, nil
	exec(`SELECT pg_drop_replication_slot('` + slot + `')`)
	exec(`SELECT pg_create_logical_replication_slot('` + slot + `', 'test_decoding')`)
	if e, _ = w.examine(); !slices.Equal(e.of(fails), []string{"source shop, slot", "source shop, position"}) {
		t.Errorf("with another's slot: %v", e.of(fails))
	}
	w.config.Sources[0].Postgres = config.NewSecret("postgres://nobody@127.0.0.1:1/none")
	if e, _ = w.examine(); !slices.Equal(e.of(fails), []string{"source shop, database"}) {
		t.Errorf("without a database: %v", e.of(fails))
	}
	w.config.Sources[0].Postgres = config.NewSecret("env:TRIBUTARY_NO_SUCH_VARIABLE")
	if e, _ = w.examine(); !slices.Equal(e.of(fails), []string{"source shop, secret"}) {
		t.Errorf("without its secret: %v", e.of(fails))
	}
}

func TestDoctorFindsBrokenObservers(t *testing.T) {
	w := newWorld(t)
	if err := os.WriteFile(w.config.Observers, []byte("observers: 7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e, _ := w.examine(); !slices.Equal(e.of(fails), []string{"observers, load"}) {
		t.Errorf("%v", e.of(fails))
	}
}

// What scripts read is told by the help of the command.
func TestHelpNamesTheFieldsOfJSON(t *testing.T) {
	w, ids := settledWorld(t)
	w.later("shop-1-0000000000009999-1-1")
	for _, args := range [][]string{
		{"status"}, {"events", "list"}, {"events", "show", ids[0]}, {"events", "explain", ids[1]}, {"dlq", "list"}, {"dlq", "stats"},
		{"dlq", "retry", "4", "--dry-run"}, {"dlq", "remove", "4", "--dry-run"}, {"observers", "test", ids[1]}, {"observers", "list"},
		{"observers", "validate"}, {"observers", "apply", w.config.Observers}, {"doctor"}, {"version"},
	} {
		command := args[0]
		if len(args) > 1 && args[0] != "doctor" {
			command += " " + args[1]
		}
		help, _ := w.run(append(strings.Fields(command), "--help")...)
		var value any
		if err := json.Unmarshal([]byte(w.must(append(args, "-o", "json")...)), &value); err != nil {
			t.Fatal(err)
		}
		if list, ok := value.([]any); ok && len(list) > 0 {
			value = list[0]
		}
		object, ok := value.(map[string]any)
		if !ok || len(object) == 0 {
			t.Errorf("%s gives %v", command, value)
		}
		for field := range object {
			if !strings.Contains(help, field) {
				t.Errorf("the help of %s does not name %s", command, field)
			}
		}
		if !strings.Contains(help, "Examples:") {
			t.Errorf("the help of %s has no examples", command)
		}
	}
}
