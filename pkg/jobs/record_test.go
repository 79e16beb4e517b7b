package jobs

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/retry"
)

var now = time.Date(2026, 11, 23, 8, 45, 53, 123456789, time.UTC)

func TestWhatATicketMeans(t *testing.T) {
	const ours, another = 7, 8
	timeout := job(1).Request.Timeout
	for name, c := range map[string]struct {
		record      func(*Record)
		round       int
		attempt     int
		sequence    uint64
		redelivered bool
		want        step
	}{
		"a ready job begins":                                   {func(*Record) {}, 0, 1, ours, false, begin},
		"a scheduled job that is due begins":                   {func(r *Record) { r.State = Scheduled }, 0, 1, ours, false, begin},
		"a job that is not due is held":                        {func(r *Record) { r.Due = now.Add(1) }, 0, 1, ours, false, hold},
		"a ticket of an earlier attempt is stale":              {func(r *Record) { r.Executions = 1 }, 0, 1, ours, false, stale},
		"one that comes again may have left a gap":             {func(r *Record) { r.Executions = 1 }, 0, 1, ours, true, mend},
		"a ticket of an earlier round is stale":                {func(r *Record) { r.Round = 1 }, 0, 1, ours, false, stale},
		"a ticket of an attempt to come is stale":              {func(*Record) {}, 0, 2, ours, false, stale},
		"no attempt is left":                                   {func(r *Record) { r.Executions = 3 }, 0, 4, ours, false, exhaust},
		"another ticket of a running job is a double":          {func(r *Record) { r.begin("a", ours, now) }, 0, 1, another, false, stale},
		"a double that comes again is one still":               {func(r *Record) { r.begin("a", ours, now) }, 0, 1, another, true, stale},
		"the same ticket of a running job: the runner is lost": {func(r *Record) { r.begin("a", ours, now) }, 0, 1, ours, true, takeOver},
		"a job that outlived its timeout is lost":              {func(r *Record) { r.begin("a", ours, now.Add(-timeout-2*time.Second)) }, 0, 1, another, false, takeOver},
		"a job that may still run is not":                      {func(r *Record) { r.begin("a", ours, now.Add(-timeout)) }, 0, 1, another, false, stale},
		"an old ticket takes nothing over":                     {func(r *Record) { r.begin("a", ours, now); r.Executions = 1 }, 0, 1, ours, true, stale},
		"a verdict is carried out by whoever comes":            {func(r *Record) { r.condemn(deadletter.Crashed, "", now) }, 5, 5, another, false, carryOut},
		"a done job needs nothing":                             {func(r *Record) { r.State = Done }, 0, 1, ours, true, stale},
		"a dead job needs nothing":                             {func(r *Record) { r.State = Dead }, 0, 1, ours, true, stale},
		"a cancelled job needs nothing":                        {func(r *Record) { r.State = Cancelled }, 0, 1, ours, true, stale},
		"a parked job waits for who unparks it":                {func(r *Record) { r.State = Parked }, 0, 1, ours, true, stale},
		"a state to come is left alone":                        {func(r *Record) { r.State = "snoozed" }, 0, 1, ours, true, foreign},
	} {
		t.Run(name, func(t *testing.T) {
			record := newRecord(job(1), now)
			c.record(record)
			d := delivery{ticket: ticket{Round: c.round, Attempt: c.attempt}, sequence: c.sequence, redelivered: c.redelivered}
			if got := record.next(d, now, time.Second); got != c.want {
				t.Errorf("got step %d, want %d", got, c.want)
			}
		})
	}
}

func TestHowAttemptsEnd(t *testing.T) {
	policy := retry.Policy{MaxAttempts: 3, Strategy: retry.Exponential, Initial: 100 * time.Millisecond, Max: time.Minute}
	failure := errors.New("status 503")
	for name, c := range map[string]struct {
		before int
		err    error
		state  State
		reason deadletter.Reason
		delay  time.Duration
	}{
		"well":                                {0, nil, Done, "", 0},
		"the first time badly":                {0, failure, Scheduled, "", 100 * time.Millisecond},
		"the second time badly":               {1, failure, Scheduled, "", 200 * time.Millisecond},
		"badly, with a delay that is asked":   {1, retry.After(failure, 5*time.Second), Scheduled, "", 5 * time.Second},
		"badly, with a delay that is shorter": {1, retry.After(failure, time.Millisecond), Scheduled, "", 200 * time.Millisecond},
		"the last time badly":                 {2, failure, Running, deadletter.Exhausted, 0},
		"the last time well":                  {2, nil, Done, "", 0},
		"for good":                            {0, retry.Permanent(failure), Running, deadletter.Permanent, 0},
	} {
		t.Run(name, func(t *testing.T) {
			record := newRecord(job(1, func(n *New) { n.Policy = policy }), now.Add(-time.Hour))
			record.Executions = c.before
			record.begin("runner", 7, now.Add(-time.Second))
			record.end(actions.Outcome{Status: 503}, c.err, now, nil)
			if record.State != c.state || record.Executions != c.before+1 {
				t.Errorf("state %s after %d executions", record.State, record.Executions)
			}
			if c.reason != "" && (record.Verdict == nil || record.Verdict.Reason != c.reason) || c.reason == "" && record.Verdict != nil {
				t.Errorf("verdict %+v", record.Verdict)
			}
			if c.state == Scheduled && !record.Due.Equal(now.Add(c.delay)) {
				t.Errorf("due after %s, want %s", record.Due.Sub(now), c.delay)
			}
			if c.reason == "" && record.Owner != "" {
				t.Errorf("it still belongs to %s", record.Owner)
			}
			last := record.Attempts[len(record.Attempts)-1]
			if last.Number != c.before+1 || last.Status != 503 || (last.Error != "") != (c.err != nil) || !last.Ended.Equal(now) {
				t.Errorf("attempt %+v", last)
			}
		})
	}
}

func TestTheThirdInterruptionKills(t *testing.T) {
	record := newRecord(job(1), now)
	for i := range 3 {
		if record.Verdict != nil {
			t.Fatalf("condemned after %d", i)
		}
		record.begin("runner", uint64(i), now)
		record.interrupt(now)
	}
	if record.Verdict == nil || record.Verdict.Reason != deadletter.Crashed || record.Executions != 0 {
		t.Errorf("verdict %+v after %d executions", record.Verdict, record.Executions)
	}
}

func TestARecordKeepsTheLastAttemptsShort(t *testing.T) {
	record := newRecord(job(1, func(n *New) {
		n.Attempts = []deadletter.Attempt{{Number: 1, Error: strings.Repeat("é", 1000)}}
	}), now)
	if record.Executions != 1 {
		t.Errorf("%d executions", record.Executions)
	}
	if text := record.Attempts[0].Error; len(text) > keptError || len(text) < keptError-utf8.UTFMax || !utf8.ValidString(text) {
		t.Errorf("an error of %d bytes is kept", len(text))
	}
	for range 20 {
		record.begin("runner", 1, now)
		record.end(actions.Outcome{}, errRefused, now, nil)
	}
	if len(record.Attempts) != keptAttempts || record.Attempts[keptAttempts-1].Number != 21 {
		t.Errorf("%d attempts, the last %+v", len(record.Attempts), record.Attempts[len(record.Attempts)-1])
	}
}

func TestARecordReadsAsItWasWritten(t *testing.T) {
	whole := newRecord(job(1, func(n *New) { n.NotBefore = now.Add(time.Hour) }), now)
	whole.begin("runner", 7, now)
	whole.interrupt(now)
	whole.condemn(deadletter.Crashed, "gone", now)
	eventIsBody := newRecord(job(1, func(n *New) { n.Request.Body = n.Event }), now)
	for name, record := range map[string]*Record{"with all it may have": whole, "whose body is the event": eventIsBody} {
		t.Run(name, func(t *testing.T) {
			data, err := record.encode()
			if err != nil {
				t.Fatal(err)
			}
			got, err := decodeRecord(data)
			if diff := cmp.Diff(record, got); diff != "" || err != nil {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
	data, _ := eventIsBody.encode()
	if strings.Contains(string(data), `"event":`) {
		t.Error("the event is stored beside the body that it is")
	}
}

func FuzzTickets(f *testing.F) {
	f.Add([]byte(`{"v":1,"id":"a","key":"ypeBEsobvcr6wjGzmiPcTaeG7_gUfE5yuYB3ha_uSLs","attempt":1,"due":"2026-11-23T08:45:53Z"}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if parsed, err := parseTicket(data); err == nil && parsed.ID == "" {
			t.Error("a ticket for no job")
		}
		if record, err := decodeRecord(data); err == nil {
			record.next(delivery{}, now, 0)
		}
	})
}
