package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/test/harness"
)

const explained = `
observers:
  - name: good
    match: {source: shop, entity: public.orders}
    actions: [{name: tell, type: webhook, url: "${receiver}/good", secret: env:SIGNING, headers: {Authorization: env:TOKEN}}]
  - name: bad
    match: {source: shop, entity: public.orders}
    retry: {max_attempts: 3, strategy: fixed, initial: 20ms, max: 50ms}
    actions: [{name: tell, type: webhook, url: "${receiver}/bad", secret: env:SIGNING, headers: {Authorization: env:TOKEN}}]
  - name: later
    match: {source: shop, entity: public.orders}
    retry: {max_attempts: 5, strategy: fixed, initial: 20ms, max: 50ms}
    actions: [{name: tell, type: webhook, url: "${receiver}/later"}]
  - name: gone
    match: {source: shop, entity: public.orders}
    on_failure: log
    actions: [{name: tell, type: webhook, url: "${receiver}/gone", headers: {Authorization: env:TOKEN}}]
  - name: never
    match: {source: shop, entity: public.orders}
    when: after.id > 1000
    actions: [{name: note, type: log, message: no}]
  - name: broken
    match: {source: shop, entity: public.orders}
    when: timestamp(after.note) > timestamp("2026-01-01T00:00:00Z")
    actions: [{name: note, type: log, message: no}]
  - name: others
    match: {source: shop, entity: public.users}
    actions: [{name: note, type: log, message: no}]
  - name: secretive
    match: {source: shop, entity: public.orders}
    retry: {max_attempts: 2, strategy: fixed, initial: 10ms, max: 50ms}
    actions:
      - {name: chat, type: slack, url: env:CHAT, text: "order ${after.id}"}
      - {name: mail, type: email, url: env:MAIL, from: a@shop.example, to: b@shop.example, subject: order, text: hello, timeout: 2s}
      - {name: call, type: sql, url: env:DATABASE, function: public.no_such_function, args: [effect_key], timeout: 2s}
`

// outcome is what scenarios read of an explanation.
type outcome struct {
	Evaluations []struct {
		At         time.Time
		By         string
		Generation string
		Matched    []string
		False      []string
		Failed     []struct{ Observer, Error string }
	}
	Observers []struct {
		Observer, Failed, Error, Judged string
		Matches                         bool
		Effects                         []struct {
			Action, State string
			Steps         []struct {
				At            time.Time
				By, Outcome   string
				Reason, Error string
				Attempt       *struct{ Number, Status int }
				Next          *time.Time
			}
		}
	}
}

// road is the steps of an observer's effect in short: who, attempt, status and outcome of each.
func (o *outcome) road(observer, action string) (state, road string) {
	for _, f := range o.Observers {
		for _, x := range f.Effects {
			if f.Observer != observer || x.Action != action {
				continue
			}
			var steps []string
			for _, s := range x.Steps {
				who, _, _ := strings.Cut(s.By, "-")
				text := who
				if s.Attempt != nil {
					text += fmt.Sprintf(" %d %d", s.Attempt.Number, s.Attempt.Status)
				}
				text += " " + s.Outcome
				if s.Reason != "" {
					text += " " + s.Reason
				}
				steps = append(steps, text)
			}
			return x.State, strings.Join(steps, ", ")
		}
	}
	return "", ""
}

// The secrets are made up, and stand nowhere but in the environment of the services.
var secrets = map[string]string{
	"signing key": "a-key-of-thirty-two-bytes-a7f3e1",
	"token":       "token-b81c55d0",
	"chat":        "chat-path-c39d02",
	"mail":        "mail-password-d4e5f6",
	"database":    "database-password-e6a7b8",
	"source":      "source-password-f0c1d2",
}

func TestAnEventIsExplainedToTheEndAndNoSecretIsKept(t *testing.T) {
	s := harness.New(t, harness.Options{Observers: explained})
	nobody := closedAddress(t)
	s.Setenv("SIGNING", "whsec_"+base64.StdEncoding.EncodeToString([]byte(secrets["signing key"])))
	s.Setenv("TOKEN", "Bearer "+secrets["token"])
	s.Setenv("CHAT", s.Receiver.URL+"/chat/"+secrets["chat"])
	s.Setenv("MAIL", "smtp://robot:"+secrets["mail"]+"@"+nobody)
	database := withPassword(t, s.Postgres.URL("postgres"), secrets["database"])
	s.Setenv("DATABASE", database)
	s.Setenv("SHOP_URL", withPassword(t, s.Postgres.URL("postgres"), secrets["source"]))
	var late atomic.Int32
	s.Receiver.Answer(func(r *http.Request) int {
		switch {
		case r.URL.Path == "/bad" || strings.HasPrefix(r.URL.Path, "/chat/"):
			return http.StatusServiceUnavailable
		case r.URL.Path == "/gone":
			return http.StatusGone
		case r.URL.Path == "/later" && late.Add(1) < 3:
			return http.StatusBadGateway
		default:
			return http.StatusOK
		}
	})
	s.Start("ingest", "worker", "jobrunner")
	s.WaitForLeader()
	s.Exec(`INSERT INTO orders (id, note) VALUES (7, 'no time')`)

	var x outcome
	harness.Eventually(t, 30*time.Second, "all is settled and on record", func() bool {
		x = outcome{}
		events := []struct{ ID string }{}
		read(t, s, &events, "events", "list", "--entity", "public.orders")
		if len(events) != 1 {
			return false
		}
		read(t, s, &x, "events", "explain", events[0].ID)
		_, bad := x.road("bad", "tell")
		_, later := x.road("later", "tell")
		_, mail := x.road("secretive", "mail")
		_, chat := x.road("secretive", "chat")
		return x.worked() && strings.HasSuffix(bad, "exhausted") && strings.HasSuffix(later, "done") && strings.HasSuffix(mail, "exhausted") && strings.HasSuffix(chat, "exhausted")
	})
	checkRoads(t, &x)
	checkText(t, s)
	checkSecrets(t, s)
}

// roads is what becomes of effects: the state and the road of each.
var roads = map[string]string{
	"good tell":      "done: worker 1 200 done",
	"bad tell":       "dead: worker 1 503 job, jobrunner 2 503 again, jobrunner 3 503 dead exhausted",
	"later tell":     "done: worker 1 502 job, jobrunner 2 502 again, jobrunner 3 200 done",
	"gone tell":      "dropped: worker 1 410 dead permanent",
	"broken ":        "dead: worker dead condition",
	"secretive call": "dead: worker 1 0 dead permanent",
}

// worked tells whether all that the worker records is there: its records of one event may be stored apart, and after those of
// the jobrunner.
func (o *outcome) worked() bool {
	for effect := range roads {
		observer, action, _ := strings.Cut(effect, " ")
		if _, road := o.road(observer, action); !strings.HasPrefix(road, "worker ") {
			return false
		}
	}
	return len(o.Evaluations) > 0
}

func checkRoads(t *testing.T, x *outcome) {
	t.Helper()
	for effect, want := range roads {
		observer, action, _ := strings.Cut(effect, " ")
		if state, road := x.road(observer, action); state+": "+road != want {
			t.Errorf("%s: %s: %s, want %s", effect, state, road, want)
		}
	}
	if len(x.Evaluations) != 1 {
		t.Fatalf("there are %d evaluations on record", len(x.Evaluations))
	}
	e := x.Evaluations[0]
	if got, want := fmt.Sprint(e.Matched, e.False, e.Failed), "[bad gone good later secretive] [never] [{broken evaluate when of broken: invalid RFC 3339 timestamp \"…\"}]"; got != want {
		t.Errorf("the evaluation is %s, want %s", got, want)
	}
	for _, f := range x.Observers {
		want := map[string]string{"never": "condition", "broken": "condition", "others": "entity"}[f.Observer]
		if f.Failed != want || f.Matches != (want == "") {
			t.Errorf("%s: matches %t, failed at %q, want %q", f.Observer, f.Matches, f.Failed, want)
		}
		for _, effect := range f.Effects {
			for i, step := range effect.Steps {
				late := i > 0 && step.At.Before(effect.Steps[i-1].At)
				again := step.Outcome == "job" || step.Outcome == "again"
				if late || step.At.IsZero() || again != (step.Next != nil) {
					t.Errorf("%s %s: step %d is %+v", f.Observer, effect.Action, i, step)
				}
			}
		}
	}
}

func checkText(t *testing.T, s *harness.System) {
	t.Helper()
	events := []struct{ ID string }{}
	read(t, s, &events, "events", "list")
	text := tributary(t, s, "events", "explain", events[0].ID, "--all").stdout
	for _, want := range []string{
		"Evaluated ", "good: matches", "attempt 1, ", "status 200: done", "never: its condition is false\n  after.id > 1000",
		"broken: its condition failed", "handed to the jobrunners", "attempt 3, ", "status 503: dead (exhausted)",
		"others: does not match: entity is not public.users", "status 410: dead (permanent)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the explanation does not say %q:\n%s", want, text)
		}
	}
}

// checkSecrets looks for the secrets in all that the system keeps and tells.
func checkSecrets(t *testing.T, s *harness.System) {
	t.Helper()
	look := func(where, text string) {
		for name, value := range secrets {
			for _, form := range []string{value, base64.StdEncoding.EncodeToString([]byte(value)), url.QueryEscape(value)} {
				if strings.Contains(text, form) {
					t.Errorf("the %s is in %s", name, where)
				}
			}
		}
	}
	for _, service := range []string{"ingest", "worker", "jobrunner", "nats"} {
		look("the log of "+service, s.Process(service).Log())
	}
	for _, service := range []string{"ingest", "worker", "jobrunner"} {
		_, metrics := s.Get(service, "/metrics")
		_, ready := s.Get(service, "/readyz")
		look("what "+service+" tells", metrics+ready)
	}
	for _, args := range [][]string{{"status"}, {"doctor"}, {"dlq", "list"}, {"jobs", "list"}, {"observers", "list"}, {"events", "list"}} {
		for _, form := range []string{"text", "json"} {
			r := tributary(t, s, append(args, "-o", form)...)
			look("tributary "+args[0], r.stdout+r.stderr)
		}
	}
	unpacker, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unpacker.Close()
	seen := map[string]int{}
	names := s.JetStream().StreamNames(t.Context())
	for name := range names.Name() {
		eachMessage(t, s.JetStream(), name, func(msg *jetstream.RawStreamMsg) {
			seen[name]++
			text := msg.Subject + fmt.Sprint(msg.Header) + string(msg.Data)
			if plain, err := unpacker.DecodeAll(msg.Data, nil); name == "TRACES" && err == nil {
				text += string(plain)
			}
			look("stream "+name, text)
		})
	}
	for _, name := range []string{"EVENTS", "TRACES", "DEADLETTERS", "KV_jobs"} {
		if seen[name] == 0 {
			t.Errorf("%s was not looked through: it is empty", name)
		}
	}
}

func eachMessage(t *testing.T, js jetstream.JetStream, name string, do func(*jetstream.RawStreamMsg)) {
	t.Helper()
	stream, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	state := stream.CachedInfo().State
	for sequence := state.FirstSeq; sequence <= state.LastSeq && state.Msgs > 0; sequence++ {
		if msg, err := stream.GetMsg(context.WithoutCancel(t.Context()), sequence); err == nil {
			do(msg)
		}
	}
}

func withPassword(t *testing.T, address, password string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(u.User.Username(), password)
	return u.String()
}

// closedAddress is one that nobody listens on.
func closedAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
