package streams_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/streams"
)

// findings gives what Check says of the streams that are not as they should be.
func findings(t *testing.T, js jetstream.JetStream, options streams.Options) map[string][3]int {
	t.Helper()
	list, err := streams.Check(t.Context(), js, options)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 12 {
		t.Errorf("there are %d findings, want one for each of 12 streams", len(list))
	}
	bad := map[string][3]int{}
	for _, f := range list {
		missing := 0
		if f.Info == nil {
			missing = 1
		}
		if counts := [3]int{missing, len(f.Differences), len(f.Fixed)}; counts != [3]int{} {
			bad[f.Stream] = counts
		}
	}
	return bad
}

func TestCheckFindsWhatApplyWouldChangeAndChangesNothing(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	if bad := findings(t, js, streams.Options{}); len(bad) != 12 || bad["EVENTS"] != [3]int{1} {
		t.Errorf("before Apply: %v", bad)
	}
	apply(t, js, streams.Options{})
	if bad := findings(t, js, streams.Options{}); len(bad) > 0 {
		t.Errorf("after Apply: %v", bad)
	}
	if bad := findings(t, js, streams.Options{EventsMaxAge: time.Hour}); !cmp.Equal(bad, map[string][3]int{"EVENTS": {0, 1, 0}}) {
		t.Errorf("with another max_age: %v", bad)
	}
	if err := js.DeleteStream(t.Context(), "DEADLETTERS"); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "DEADLETTERS", Subjects: []string{"deadletters.>"}, Storage: jetstream.MemoryStorage, Discard: jetstream.DiscardNew,
		Duplicates: 24 * time.Hour, MaxAge: 48 * time.Hour, Description: "Tributary: what could not be done, until it is done or removed",
	}); err != nil {
		t.Fatal(err)
	}
	want := map[string][3]int{"DEADLETTERS": {0, 1, 1}}
	for range 2 {
		if bad := findings(t, js, streams.Options{}); !cmp.Equal(bad, want) {
			t.Errorf("with a stream of somebody's own: %v", bad)
		}
	}
}
