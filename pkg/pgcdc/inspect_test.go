package pgcdc

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tributary-dev/tributary/internal/pgtest"
)

func TestInspectReportsWhatASourceWouldFind(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	db.exec(`CREATE TABLE plain (id int PRIMARY KEY); CREATE TABLE whole (id int); ALTER TABLE whole REPLICA IDENTITY FULL;
		CREATE TABLE bare (id int); CREATE SCHEMA other; CREATE TABLE other.kept (id int PRIMARY KEY);
		CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (9)`)
	options := Options{Name: "shop", ConnString: db.url, Tables: []string{"public.*"}}
	before, err := Inspect(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	if !before.Supported() || before.WALLevel != "logical" || !before.Replicates || before.Standing.Exists || before.Publication || !before.Open {
		t.Errorf("before: %+v", before)
	}
	for _, table := range before.Tables {
		if table.Published {
			t.Errorf("%s is published before there is a publication", table.Name)
		}
	}
	db.exec(`CREATE PUBLICATION tributary_shop FOR TABLE plain, parts`)
	db.exec(`SELECT pg_create_logical_replication_slot('tributary_shop', 'pgoutput')`)
	after, err := Inspect(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	want := []TableReport{
		{Schema: "public", Name: "plain", Published: true, Identifiable: true, Readable: true},
		{Schema: "public", Name: "whole", Identifiable: true, Full: true, Readable: true},
		{Schema: "public", Name: "bare", Readable: true},
		{Schema: "public", Name: "parts", Published: true, Identifiable: true, Readable: true, Partitioned: true},
		{Schema: "public", Name: "parts_1", Published: true, Identifiable: true, Readable: true},
	}
	if diff := cmp.Diff(want, after.Tables); diff != "" {
		t.Error(diff)
	}
	if !after.Publication || !after.Owned {
		t.Errorf("the publication is not seen: %+v", after)
	}
}

func TestStandTellsHowTheSlotStands(t *testing.T) {
	db := newDatabase(t, pgtest.Database(t))
	const slot = "standing_test"
	before, err := Stand(t.Context(), db.url, slot)
	if err != nil || before.Exists || before.Flushed == 0 || before.Retained() != 0 {
		t.Errorf("before: %+v, %v", before, err)
	}
	db.exec(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, slot)
	db.exec(`CREATE TABLE t (x text); INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 1000)`)
	db.exec(`CHECKPOINT`) // what is not flushed yet is not seen
	after, err := Stand(t.Context(), db.url, slot)
	if err != nil {
		t.Fatal(err)
	}
	if !after.Exists || after.Active || after.Plugin != "pgoutput" || after.WALStatus != "reserved" || after.Database == "" {
		t.Errorf("after: %+v", after)
	}
	if after.Confirmed < after.Restart || after.Confirmed >= after.Flushed || after.Retained() < 1_000_000 {
		t.Errorf("after a megabyte was written %d bytes are retained: %+v", after.Retained(), after)
	}
	if _, err := Stand(t.Context(), "postgres://nobody@127.0.0.1:1/none", slot); err == nil {
		t.Error("a server that is not there answers")
	}
}
