package natskv_test

import (
	"errors"
	"testing"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/internal/natstest"
)

func TestFirstIsTheOneThatWasStoredFirst(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	makeBucket(t, js, 1)
	b := natskv.Open(js, "test")
	first := func(pattern, want string) {
		t.Helper()
		key, entry, err := b.First(t.Context(), pattern)
		switch {
		case want == "" && !errors.Is(err, natskv.ErrNotFound):
			t.Errorf("first of %s is %s, %v; want none", pattern, key, err)
		case want != "" && (err != nil || key != want || string(entry.Value) != "of "+want || entry.Revision == 0):
			t.Errorf("first of %s is %s with %q, %v; want %s", pattern, key, entry.Value, err, want)
		}
	}
	first("lane.a.*", "")
	revisions := map[string]uint64{}
	for _, key := range []string{"other", "lane.b.1", "lane.a.9", "lane.a.1", "lane.a.5"} {
		revisions[key] = create(t, b, key, "of "+key)
	}
	first("lane.a.*", "lane.a.9")
	first("lane.b.*", "lane.b.1")
	first("lane.>", "lane.b.1")
	if err := b.Delete(t.Context(), "lane.a.9", revisions["lane.a.9"]); err != nil {
		t.Fatal(err)
	}
	first("lane.a.*", "lane.a.1")
	if _, err := b.Put(t.Context(), "lane.a.1", []byte("of lane.a.1"), 0); err != nil { // stored anew: behind the others
		t.Fatal(err)
	}
	first("lane.a.*", "lane.a.5")
	kv, err := js.KeyValue(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Delete(t.Context(), "lane.a.5"); err != nil { // a person's, which leaves a marker
		t.Fatal(err)
	}
	first("lane.a.*", "lane.a.1")
	if _, _, err := b.First(t.Context(), `lane.a"*`); err == nil || errors.Is(err, natskv.ErrNotFound) {
		t.Errorf("a pattern out of the alphabet gives %v", err)
	}
}
