package app_test

import (
	"testing"

	"github.com/tributary-dev/tributary/internal/app"
	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/internal/pgtest"
)

// A mask that a root had holds for its former partition in the next process too.
func TestADetachedPartitionStaysMaskedAfterARestart(t *testing.T) {
	server := natstest.Start(t)
	database := pgtest.Database(t)
	exec := pgtest.Exec(t, database)
	js := server.JetStream(t)
	exec(`CREATE TABLE users (id int PRIMARY KEY, email text) PARTITION BY RANGE (id);
		CREATE TABLE users_1 PARTITION OF users FOR VALUES FROM (0) TO (10); CREATE TABLE users_2 PARTITION OF users FOR VALUES FROM (10) TO (20);
		INSERT INTO users VALUES (1, 'SECRET')`)
	session := func(what string, count int) {
		t.Run(what, func(t *testing.T) {
			ingest := run(t, "ingest", app.Ingest, `
nats: {url: "`+server.URL()+`"}
sources: [{name: some, postgres: env:SHOP_URL, tables: [public.*], mask: {users.email: sha256}}]
http: {listen: 127.0.0.1:0}
`, "SHOP_URL="+database)
			ingest.waitFor("some", true, "leads")
			waitFor(t, "the events", func() bool { return len(eventsOf(t, js, "some")) == count }) // which show no secret
		})
	}
	session("before", 1)
	exec(`ALTER TABLE users DETACH PARTITION users_2`)
	exec(`INSERT INTO users VALUES (2, 'SECRET')`)
	exec(`INSERT INTO users_2 VALUES (12, 'SECRET')`)
	session("behind", 3)
	exec(`ALTER TABLE users_2 RENAME TO old`)
	exec(`INSERT INTO old VALUES (13, 'SECRET')`)
	session("under another name", 4)
}
