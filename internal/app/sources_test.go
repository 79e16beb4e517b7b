package app_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/app"
	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/internal/pgtest"
	"github.com/tributary-dev/tributary/pkg/events"
)

func TestEachSourceOfAProcessPublishesWhatItIsToldTo(t *testing.T) {
	server := natstest.Start(t)
	database := pgtest.Database(t)
	exec := pgtest.Exec(t, database)
	exec(`CREATE TABLE users (id int PRIMARY KEY, email text, status text, password text); ALTER TABLE users REPLICA IDENTITY FULL;
		CREATE TABLE sessions (id int PRIMARY KEY); INSERT INTO users VALUES (1, 'SECRET', 'new', 'SECRET')`)
	ingest := run(t, "ingest", app.Ingest, `
nats: {url: "`+server.URL()+`"}
sources:
  - {name: all, postgres: env:SHOP_URL}
  - name: some
    postgres: env:SHOP_URL
    tables: [public.*]
    ops: [insert, update, delete, snapshot]
    filter: table != "sessions" && (op != "update" || changed("status"))
    exclude: [users.password]
    mask: {users.email: hmac}
    mask_key: env:MASK_KEY
http: {listen: 127.0.0.1:0}
`, "SHOP_URL="+database, "MASK_KEY=0123456789abcdef")
	ingest.waitFor("all", true, "leads")
	ingest.waitFor("some", true, "leads")
	js := server.JetStream(t)
	for _, source := range []string{"all", "some"} { // a TRUNCATE empties a table for older snapshots too
		waitFor(t, "the snapshot of "+source, func() bool { return len(eventsOf(t, js, source)) == 1 })
	}
	exec(`INSERT INTO sessions VALUES (1); UPDATE users SET email = 'SECRET2'; UPDATE users SET status = 'old'; INSERT INTO sessions VALUES (2)`)
	exec(`TRUNCATE users`)
	exec(`INSERT INTO users VALUES (9)`)
	for source, want := range map[string]string{"all": "snapshot 0, insert 1, update 2, update 3, insert 4, truncate 1, insert 1", "some": "snapshot 0, update 3, insert 1"} {
		var got []string
		waitFor(t, "the last insert of "+source, func() bool {
			got = eventsOf(t, js, source)
			return len(got) > 1 && got[len(got)-1] == "insert 1"
		})
		if text := strings.Join(got, ", "); text != want {
			t.Errorf("%s has published %s, want %s", source, text, want)
		}
	}
}

// eventsOf gives operation and index of all events of a source; of one called some, none may show a masked value.
func eventsOf(t *testing.T, js jetstream.JetStream, source string) (all []string) {
	t.Helper()
	consumer, err := js.OrderedConsumer(t.Context(), events.StreamEvents, jetstream.OrderedConsumerConfig{FilterSubjects: events.ChangesOfSource(source)})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := consumer.FetchNoWait(100)
	if err != nil {
		t.Fatal(err)
	}
	for msg := range batch.Messages() {
		event, err := events.Parse(msg.Data())
		if err != nil {
			t.Fatal(err)
		}
		row, err := event.Row()
		if err != nil {
			t.Fatal(err)
		}
		index := "0"
		if row.Tx != nil {
			index = string(rune('0' + row.Tx.Index))
		}
		all = append(all, string(row.Op)+" "+index)
		if source == "some" && (bytes.Contains(msg.Data(), []byte("SECRET")) || bytes.Contains(msg.Data(), []byte("password"))) {
			t.Errorf("a masked value is published: %s", msg.Data())
		}
		if last := row.Tx != nil && row.Tx.Index == 3; source == "some" && last != (row.Tx != nil && row.Tx.Last && row.Op == events.OpUpdate) {
			t.Errorf("the end of the transaction is not where it is published: %s", msg.Data())
		}
	}
	return all
}

func TestWhatASourceIsToPublishIsCheckedWithoutARun(t *testing.T) {
	const source = "nats: {url: nats://127.0.0.1:1}\nsources: [{name: shop, postgres: env:SHOP_URL, %}]\n"
	for extra, want := range map[string]string{
		`filter: 'table != "a" && after.x > 1'`: "",
		`filter: 'tabel != "a"'`:                `sources[0].filter: undeclared reference to 'tabel' (did you mean 'table'?), at "tabel != \"a\""`,
		`filter: '1 + 1'`:                       "sources[0].filter: a condition is true or false",
		`exclude: [users]`:                      `sources[shop].exclude: "users" is not [schema.]table.column`,
		`mask: {u.e: hmac}, mask_key: env:NONE`: "sources[0].mask_key needs the environment variable NONE",
		`mask: {u.e: hmac}, mask_key: env:KEY`:  "sources[shop].mask_key must have at least 16 bytes",
	} {
		dir := files(t, map[string]string{"tributary.yaml": strings.Replace(source, "%", extra, 1)})
		var stderr bytes.Buffer
		status := app.Ingest(t.Context(), app.Program{
			Args: []string{"--config", filepath.Join(dir, "tributary.yaml"), "--check"}, Environ: []string{"SHOP_URL=postgres://x@127.0.0.1/x", "KEY=short"},
			Stdout: &bytes.Buffer{}, Stderr: &stderr,
		})
		if (status == 0) != (want == "") || !strings.Contains(stderr.String(), want) {
			t.Errorf("%s: status %d\n got %s\nwant %s", extra, status, stderr.String(), want)
		}
	}
}
