package deadletter

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go/jetstream"
)

// write stores a record whose ID is its effect key, the n-th of its observer and action.
func write(t *testing.T, w *Writer, n int, reason Reason, observer, action string) {
	t.Helper()
	r := sample()
	r.EventID = fmt.Sprintf("shop-1-%d", n)
	r.EffectKey = r.EventID + "~" + observer + "~" + action
	r.Reason, r.Observer, r.Action = reason, observer, action
	if reason == Undecodable {
		r.ID, r.EffectKey, r.EventID, r.Effect, r.Request = fmt.Sprintf("inbox-%d", n), "", "", nil, nil
	}
	if err := w.Write(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// several stores seven records; the fourth one is of three messages.
func several(t *testing.T) (jetstream.JetStream, jetstream.Stream, *Writer) {
	t.Helper()
	js, stream := setUp(t)
	w := New(js)
	write(t, w, 1, Exhausted, "orders", "tell")
	write(t, w, 2, Exhausted, "orders", "log")
	write(t, w, 3, Permanent, "orders", "tell")
	large := sample()
	large.Event = []byte(`"` + strings.Repeat("0123456789", 1000) + `"`)
	large.EffectKey, large.Observer, large.Action = "large", "orders", "tell"
	w.maxBody = 5000
	if err := w.Write(t.Context(), large); err != nil {
		t.Fatal(err)
	}
	w.maxBody = 0
	write(t, w, 5, Condition, "mails", "")
	write(t, w, 6, Undecodable, "", "")
	write(t, w, 7, Exhausted, "orders", "tell")
	return js, stream, w
}

func TestFiltersSelectRecords(t *testing.T) {
	js, _, _ := several(t)
	for name, c := range map[string]struct {
		filter Filter
		want   []uint64
	}{
		"all":                     {Filter{}, []uint64{1, 2, 3, 6, 7, 8, 9}},
		"of a reason":             {Filter{Reason: Exhausted}, []uint64{1, 2, 6, 9}},
		"of an observer":          {Filter{Observer: "mails"}, []uint64{7}},
		"of an action":            {Filter{Observer: "orders", Action: "tell"}, []uint64{1, 3, 6, 9}},
		"of a reason and action":  {Filter{Reason: Permanent, Action: "tell"}, []uint64{3}},
		"of an event":             {Filter{EventID: "shop-1-2"}, []uint64{2}},
		"since a time ago":        {Filter{Since: time.Now().Add(-time.Hour)}, []uint64{1, 2, 3, 6, 7, 8, 9}},
		"since a time to come":    {Filter{Since: time.Now().Add(time.Hour)}, nil},
		"of nobody":               {Filter{Observer: "nobody"}, nil},
		"of what is no such name": {Filter{Observer: "a.b *"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []uint64
			err := Each(t.Context(), js, c.filter, func(e Entry) error {
				got = append(got, e.Sequence)
				return e.Err
			})
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("Each gave %v, %v, want %v", got, err, c.want)
			}
			newest, err := Newest(t.Context(), js, c.filter, 2)
			if err != nil {
				t.Fatal(err)
			}
			want := slices.Clone(c.want)
			slices.Reverse(want)
			want = want[:min(2, len(want))]
			for i, e := range newest {
				if i >= len(want) || e.Sequence != want[i] {
					t.Errorf("Newest gave %d at %d, want %v", e.Sequence, i, want)
				}
			}
			if len(newest) != len(want) {
				t.Errorf("Newest gave %d entries, want %d", len(newest), len(want))
			}
		})
	}
}

func TestStatsCountRecordsNotMessages(t *testing.T) {
	js, _, _ := several(t)
	got, err := Stats(t.Context(), js, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	want := []Group{
		{Reason: Exhausted, Observer: "orders", Action: "tell", Count: 3},
		{Reason: Exhausted, Observer: "orders", Action: "log", Count: 1},
		{Reason: Permanent, Observer: "orders", Action: "tell", Count: 1},
		{Reason: Condition, Observer: "mails", Count: 1},
		{Reason: Undecodable, Count: 1},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Group{}, "Oldest", "Newest")); diff != "" {
		t.Error(diff)
	}
	if g := got[0]; !g.Oldest.Before(g.Newest) {
		t.Errorf("the oldest is of %s, the newest of %s", g.Oldest, g.Newest)
	}
	if got, err := Stats(t.Context(), js, Filter{Reason: Permanent}); err != nil || len(got) != 1 || got[0].Count != 1 {
		t.Errorf("of one reason: %v, %v", got, err)
	}
}

func TestRemoveTakesTheWholeRecord(t *testing.T) {
	js, stream, _ := several(t)
	if err := Remove(t.Context(), js, 4); !errors.Is(err, ErrNotFound) {
		t.Errorf("a part was taken for a record: %v", err)
	}
	if err := Remove(t.Context(), js, 6); err != nil {
		t.Fatal(err)
	}
	if got := messages(t, stream); got != 6 {
		t.Errorf("%d messages are left, want 6", got)
	}
	if err := Remove(t.Context(), js, 6); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
}

func TestSettleRemovesTheRecordItNamesAlone(t *testing.T) {
	js, stream, w := several(t)
	if err := w.Settle(t.Context(), 1, "shop-1-3~orders~tell"); err != nil {
		t.Fatal(err)
	}
	if got := messages(t, stream); got != 9 {
		t.Fatalf("another record was removed: %d messages are left", got)
	}
	for range 2 {
		if err := w.Settle(t.Context(), 1, "shop-1-1~orders~tell"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Get(t.Context(), js, 1); !errors.Is(err, ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
	if got := messages(t, stream); got != 8 {
		t.Errorf("%d messages are left, want 8", got)
	}
}

func TestBrokenRecordsAreSeenAndRemoved(t *testing.T) {
	js, stream, _ := several(t)
	if err := stream.DeleteMsg(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	broken := 0
	err := Each(t.Context(), js, Filter{Action: "tell"}, func(e Entry) error {
		if e.Err != nil {
			broken++
		}
		return nil
	})
	if err != nil || broken != 1 {
		t.Fatalf("%d broken records are seen, %v", broken, err)
	}
	if err := Remove(t.Context(), js, 6); err != nil {
		t.Fatal(err)
	}
	if got := messages(t, stream); got != 6 {
		t.Errorf("%d messages are left, want 6", got)
	}
}
