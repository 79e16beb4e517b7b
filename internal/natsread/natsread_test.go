package natsread

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newStream makes a stream of n messages, every seventh of them on s.seven.
func newStream(t *testing.T, n int) jetstream.JetStream {
	t.Helper()
	js := natstest.Start(t).JetStream(t)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}}); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= n; i++ {
		subject := "s.other"
		if i%7 == 0 {
			subject = "s.seven"
		}
		if _, err := js.PublishAsync(subject, fmt.Appendf(nil, "%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(time.Minute):
		t.Fatal("messages are not acknowledged")
	}
	return js
}

type direction func(context.Context, jetstream.JetStream, Query, func(*jetstream.RawStreamMsg) error) error

func sequences(t *testing.T, js jetstream.JetStream, read direction, q Query, most int) []uint64 {
	t.Helper()
	q.Stream = "S"
	var got []uint64
	err := read(t.Context(), js, q, func(msg *jetstream.RawStreamMsg) error {
		got = append(got, msg.Sequence)
		if len(got) == most {
			return ErrStop
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestReadsWhatIsAskedForInOrder(t *testing.T) {
	const n = 3000
	js := newStream(t, n)
	upTo := func(first, last, step int) []uint64 {
		var list []uint64
		for i := first; i <= last; i += step {
			list = append(list, uint64(i))
		}
		return list
	}
	seven := []string{"s.seven"}
	for name, test := range map[string]struct {
		query Query
		most  int
		want  []uint64 // forwards
	}{
		"everything":                {Query{}, 0, upTo(1, n, 1)},
		"a range":                   {Query{From: 100, To: 199}, 0, upTo(100, 199, 1)},
		"a range beyond the end":    {Query{From: n - 1, To: 2 * n}, 0, upTo(n-1, n, 1)},
		"a subject":                 {Query{Subjects: seven}, 0, upTo(7, n, 7)},
		"a subject within a range":  {Query{Subjects: seven, From: 8, To: 27}, 0, []uint64{14, 21}},
		"a subject that is not met": {Query{Subjects: []string{"s.eight"}}, 0, nil},
		"headers":                   {Query{HeadersOnly: true, To: 3}, 0, []uint64{1, 2, 3}},
		"since later":               {Query{Since: time.Now().Add(time.Hour)}, 0, nil},
		"since before":              {Query{Since: time.Now().Add(-time.Hour), To: 2}, 0, []uint64{1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := sequences(t, js, Forward, test.query, test.most); !slices.Equal(got, test.want) {
				t.Errorf("forwards: got %v, want %v", got, test.want)
			}
			slices.Reverse(test.want)
			if got := sequences(t, js, Backward, test.query, test.most); !slices.Equal(got, test.want) {
				t.Errorf("backwards: got %v, want %v", got, test.want)
			}
		})
	}
	if got := sequences(t, js, Backward, Query{Subjects: seven}, 2); !slices.Equal(got, []uint64{2996, 2989}) {
		t.Errorf("the newest two: got %v", got)
	}
	stream, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if left := stream.CachedInfo().State.Consumers; left > 0 {
		t.Errorf("%d consumers stay behind", left)
	}
}

func TestReadingEndsWithTheCallbacksError(t *testing.T) {
	js := newStream(t, 10)
	broken := errors.New("broken")
	for name, read := range map[string]direction{"forwards": Forward, "backwards": Backward} {
		calls := 0
		err := read(t.Context(), js, Query{Stream: "S"}, func(*jetstream.RawStreamMsg) error {
			calls++
			return broken
		})
		if !errors.Is(err, broken) || calls != 1 {
			t.Errorf("%s: %d calls, error %v", name, calls, err)
		}
		if err := read(t.Context(), js, Query{Stream: "T"}, nil); !errors.Is(err, jetstream.ErrStreamNotFound) {
			t.Errorf("%s: a missing stream: %v", name, err)
		}
	}
}
