package pgtest

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/tributary-dev/tributary/internal/postgres"
)

// Standby starts a streaming standby of primary, for this test alone, which reads by a physical slot named standby. Its data is
// a copy of the primary's, which is stopped in order for a moment; settings are of postgresql.conf, beside those that make it
// follow.
func Standby(t testing.TB, primary *postgres.Server, settings map[string]string) *postgres.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	address, err := url.Parse(primary.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	if err := execute(address.String(), "SELECT pg_create_physical_replication_slot('standby', true)"); err != nil {
		t.Fatalf("make the standby's slot: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "standby")
	if err := primary.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if err := copyData(dir, primary.Dir()); err != nil {
		t.Fatalf("copy the primary's data: %v", err)
	}
	if err := primary.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{
		"primary_conninfo":     fmt.Sprintf("host=127.0.0.1 port=%s user=%s dbname=postgres", address.Port(), postgres.User),
		"primary_slot_name":    "standby",
		"hot_standby":          "on",
		"hot_standby_feedback": "on",
	}
	maps.Copy(all, settings)
	return start(t, dir, all)
}

// copyData copies a data directory that no server has open, as one of a standby.
func copyData(to, from string) error {
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	// PostgreSQL wants its data to itself, and CopyFS gives directories to all.
	if err := os.Chmod(to, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, "standby.signal"), nil, 0o600)
}
