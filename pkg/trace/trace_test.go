package trace

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/streams"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var at = time.Date(2026, 11, 23, 8, 45, 53, 123456000, time.UTC)

func TestRecordsReadAsTheyWereWritten(t *testing.T) {
	for name, record := range map[string]Record{
		"of nothing": {Event: "shop-1-A-1-1", Sequence: 7, At: at},
		"an evaluation": {Event: "web~abc", Sequence: 1 << 60, At: at, Generation: "0123456789abcdef", Evaluation: &Evaluation{
			Matched: []string{"a", "b"}, False: []string{"c"}, Failed: []Failure{{"d", "no such key: \"x\"\n\x00é"}}, More: 3,
		}},
		"an evaluation that nobody matches": {Event: "e", Sequence: 1, At: at, Evaluation: &Evaluation{}},
		"an attempt": {Event: "e", Sequence: 2, At: at, Effect: &Effect{
			Observer: "o", Action: "a", Outcome: Handed, Next: at.Add(time.Second), Begun: 2,
			Attempt: &Attempt{Number: 1, Started: at, Ended: at.Add(1500 * time.Microsecond), Status: 503, Error: "503"},
		}},
		"an attempt of no time": {Event: "e", At: at, Effect: &Effect{
			Observer: "o", Action: "a", Outcome: Done, Attempt: &Attempt{Number: 1, Round: 2, Started: at, Ended: at},
		}},
		"an attempt whose process was lost": {Event: "e", At: at, Effect: &Effect{
			Observer: "o", Action: "a", Outcome: Again, Attempt: &Attempt{Number: 2, Started: at, Error: "interrupted"},
		}},
		"no attempt": {Event: "e", At: at, Effect: &Effect{Observer: "o", Outcome: Dead, Reason: "condition", Error: "bad"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseLine(appendLine(nil, &record))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(record, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRecordsAreBounded(t *testing.T) {
	var names []string
	var failures []Failure
	for i := range 10_000 {
		names = append(names, fmt.Sprint("observer-", i))
		failures = append(failures, Failure{names[i], strings.Repeat("é", 1000)})
	}
	text := appendLine(nil, &Record{Event: "e", Evaluation: &Evaluation{Matched: names, False: names, Failed: failures, More: 1}})
	if len(text) > 16<<10 {
		t.Errorf("a record has %d bytes", len(text))
	}
	got, err := parseLine(text)
	if err != nil {
		t.Fatal(err)
	}
	e := got.Evaluation
	if all := len(e.Matched) + len(e.False) + len(e.Failed) + e.More; all != 30_001 {
		t.Errorf("%d observers are accounted for, want 30001", all)
	}
}

// rig is a server with a stream of traces.
func rig(t *testing.T, options Options) (*natstest.Server, *Recorder) {
	t.Helper()
	server := natstest.Start(t)
	js := server.JetStream(t)
	if _, err := streams.Apply(t.Context(), js, streams.Options{Partitions: 4}); err != nil {
		t.Fatal(err)
	}
	options.every = 5 * time.Millisecond
	recorder, err := New(server.JetStream(t), options)
	if err != nil {
		t.Fatal(err)
	}
	return server, recorder
}

func evaluated(event string, sequence uint64) *Record {
	return &Record{Event: event, Sequence: sequence, At: time.Now(), Generation: "g", Evaluation: &Evaluation{Matched: []string{"o"}}}
}

func attempted(event string, sequence uint64, number int, outcome Outcome) *Record {
	return &Record{Event: event, Sequence: sequence, At: time.Now(), Effect: &Effect{
		Observer: "o", Action: "a", Outcome: outcome, Attempt: &Attempt{Number: number, Started: time.Now()},
	}}
}
