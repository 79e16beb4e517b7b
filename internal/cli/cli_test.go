package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/internal/config"
	"github.com/tributary-dev/tributary/internal/stall"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

func TestStatusOfAnIdleAndOfABusyDeployment(t *testing.T) {
	w := newWorld(t)
	w.golden("status-idle", w.must("status"))
	busy, _ := settledWorld(t)
	busy.later("shop-1-0000000000009999-1-1")
	heartbeat := 0.00123
	busy.stands(ingest.Standing{
		Leader: "ingest-a", HeartbeatSeconds: &heartbeat, UnpublishedEvents: 1200, UnpublishedBytes: 900_000, InFlightEvents: 999,
		Trouble: "leads, and EVENTS has taken nothing for 12s",
	})
	busy.golden("status-busy", busy.must("status", "--partitions"))
	var status struct {
		Sources []struct {
			Name, Leader, Phase string
			Stored              string
			Session             ingest.Standing
		}
		Jobs        struct{ States map[string]int }
		DeadLetters struct {
			Total   int
			Reasons map[string]int
		} `json:"dead_letters"`
		Workers struct {
			Members []struct{ Partitions []int }
		}
	}
	if err := json.Unmarshal([]byte(busy.must("status", "-o", "json")), &status); err != nil {
		t.Fatal(err)
	}
	if s := status.Sources[0]; s.Name != "shop" || s.Leader != "ingest-a" || s.Phase != "streaming" || s.Stored != "0/301" {
		t.Errorf("the source is %+v", s)
	}
	if l := status.Sources[0].Session; l.UnpublishedEvents != 1200 || l.InFlightEvents != 999 || l.HeartbeatSeconds == nil || *l.HeartbeatSeconds != heartbeat {
		t.Errorf("with its leader it stands at %+v", l)
	}
	if status.Jobs.States["scheduled"] != 1 || status.Jobs.States["dead"] != 1 || status.Jobs.States["running"] != 0 {
		t.Errorf("the jobs are %v", status.Jobs.States)
	}
	if d := status.DeadLetters; d.Total != 4 || d.Reasons["exhausted"] != 1 || d.Reasons["condition"] != 3 {
		t.Errorf("the dead letters are %+v", d)
	}
	if len(status.Workers.Members) != 1 || len(status.Workers.Members[0].Partitions) != 4 {
		t.Errorf("the workers are %+v", status.Workers)
	}
}

func TestWatchingGoesOnWhileNATSIsAway(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	frames := make(chan map[string]any)
	read, write := io.Pipe()
	var watching sync.WaitGroup
	watching.Go(func() {
		defer func() { _ = write.Close() }()
		watch := statusCommand{Watch: true, Every: 100 * time.Millisecond}
		if err := watch.Run(&Invocation{Ctx: ctx, Config: w.config, Options: Globals{Output: "json"}, Stdout: write, Now: time.Now}); err != nil {
			t.Errorf("watching ends with %v", err)
		}
	})
	watching.Go(func() {
		defer close(frames)
		for decoder := json.NewDecoder(read); ; {
			frame := map[string]any{}
			if decoder.Decode(&frame) != nil {
				return
			}
			frames <- frame
		}
	})
	until := func(what string, is func(map[string]any) bool) {
		t.Helper()
		for frame := range frames {
			if is(frame) {
				return
			}
		}
		t.Fatalf("watching ended before %s", what)
	}
	well := func(frame map[string]any) bool { return frame["streams"] != nil }
	until("a first status", well)
	until("a second status", well)
	w.server.Stop()
	until("an error", func(frame map[string]any) bool { return frame["error"] != nil })
	w.server.Restart(t)
	until("a status again", well)
	cancel()
	for range frames { // what is on its way
	}
	watching.Wait()
}

func TestEventsAreListedShownAndExplained(t *testing.T) {
	w, ids := settledWorld(t)
	w.golden("events-list", w.must("events", "list"))
	w.golden("events-show", w.must("events", "show", ids[1]))
	w.golden("events-explain-done", w.must("events", "explain", ids[1]))
	w.golden("events-explain-dead", w.must("events", "explain", ids[2], "--all"))
	for name, c := range map[string]struct {
		args []string
		want int
	}{
		"all":                   {nil, 3},
		"of a source":           {[]string{"--source", "shop"}, 3},
		"of another source":     {[]string{"--source", "web"}, 0},
		"of a table":            {[]string{"--entity", "public.orders"}, 3},
		"of a schema":           {[]string{"--entity", "public.*"}, 3},
		"of another table":      {[]string{"--entity", "public.items"}, 0},
		"of an operation":       {[]string{"--op", "update"}, 1},
		"at most two":           {[]string{"--limit", "2"}, 2},
		"from a sequence":       {[]string{"--from", "3"}, 2},
		"since an hour":         {[]string{"--since", "1h"}, 3},
		"since a time to come":  {[]string{"--since", "2126-01-01"}, 0},
		"of a table since then": {[]string{"--entity", "public.orders", "--op", "insert", "--since", "1d"}, 2},
	} {
		var got []struct{ ID string }
		if err := json.Unmarshal([]byte(w.must(append([]string{"events", "list", "-o", "json"}, c.args...)...)), &got); err != nil {
			t.Fatal(err)
		}
		if len(got) != c.want {
			t.Errorf("%s: %d events, want %d", name, len(got), c.want)
		}
	}
}

func TestEventIsFoundByEachOfItsNames(t *testing.T) {
	w := newWorld(t)
	const n = 300
	ids := make([]string, n)
	for i := range n {
		ids[i] = w.insert(i)
		if i%50 == 0 {
			w.lead("ingest-a") // positions lie between
		}
	}
	cart := []byte(`{"specversion":"1.0","id":"cart 7","source":"urn:web","type":"cart.checked-out","partitionkey":"cart/7","sequence":"0000000000000007.0000000001","data":{"cart":7}}`)
	w.publish("events.000.web.cart.checked-out.message", cart)
	idOf := func(name string) string {
		t.Helper()
		var e struct{ ID string }
		if err := json.Unmarshal([]byte(w.must("events", "show", name, "-o", "json")), &e); err != nil {
			t.Fatal(err)
		}
		return e.ID
	}
	for _, i := range []int{0, 1, 49, 50, 51, 150, n - 2, n - 1} {
		if got := idOf(ids[i]); got != ids[i] {
			t.Errorf("%s gives %s", ids[i], got)
		}
		if got := idOf(ids[i] + "~orders~tell"); got != ids[i] {
			t.Errorf("the effect of %s gives %s", ids[i], got)
		}
	}
	if got := idOf("1"); got != ids[0] {
		t.Errorf("sequence 1 gives %s", got)
	}
	var stored struct{ Event struct{ ID string } }
	if err := json.Unmarshal([]byte(w.must("events", "show", "cart 7", "-o", "json")), &stored); err != nil || stored.Event.ID != "cart 7" {
		t.Errorf("the application's event is %+v, %v", stored, err)
	}
	for _, missing := range []string{"shop-1-0000000000000101-7-1", "shop-2-0000000000000100-7-1", "other-1-0000000000000100-7-1", "nothing", "99999", "2"} {
		if _, err := w.run("events", "show", missing); err == nil {
			t.Errorf("%s is found", missing)
		}
	}
}

func TestDeadLettersAreRetriedUntilTheySucceed(t *testing.T) {
	w, ids := settledWorld(t)
	key := ids[2] + "~orders~tell"
	letters, err := deadletter.Newest(t.Context(), w.js, deadletter.Filter{Observer: "orders"}, 1)
	if err != nil || len(letters) != 1 {
		t.Fatal(err)
	}
	w.golden("dlq-list", w.must("dlq", "list", "--reason", "exhausted"))
	w.golden("dlq-show", w.must("dlq", "show", key))
	w.golden("dlq-stats", w.must("dlq", "stats"))
	count := func() int {
		t.Helper()
		all, err := deadletter.List(t.Context(), w.js, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	w.golden("dlq-retry-dry", w.must("dlq", "retry-all", "--observer", "orders", "--dry-run"))
	w.golden("dlq-remove-dry", w.must("dlq", "remove", "--all", "--dry-run"))
	if got := count(); got != 4 || w.sink.done(key) != 0 {
		t.Fatalf("dry runs left %d dead letters and did the effect %d times", got, w.sink.done(key))
	}
	w.sink.fail(false)
	w.golden("dlq-retry", w.must("dlq", "retry", key))
	eventually(t, "its dead letter goes", func() bool { return count() == 3 })
	if got := w.sink.done(key); got != 1 {
		t.Errorf("the effect was done %d times", got)
	}
	if out := w.must("events", "explain", ids[2]); !strings.Contains(out, "done by its job, after 3 attempts") {
		t.Errorf("the event is explained as\n%s", out)
	}

	out, err := w.run("dlq", "retry-all")
	if err == nil || !strings.Contains(out, "3  not tried again") || !strings.Contains(err.Error(), "--rerender") {
		t.Errorf("what was never rendered: %v\n%s", err, out)
	}
	if out, err = w.run("dlq", "retry-all", "--rerender"); err == nil {
		t.Errorf("a condition that still fails: %s", out)
	}
	mended := strings.Replace(rules, "after.total > 100", "after.?total.orValue(101) > 100", 1)
	if err := os.WriteFile(w.config.Observers, []byte(mended), 0o600); err != nil {
		t.Fatal(err)
	}
	w.golden("dlq-rerender", w.must("dlq", "retry-all", "--rerender"))
	for _, id := range ids {
		eventually(t, "the effects of a condition that holds now are done", func() bool { return w.sink.done(id+"~big~note") == 1 })
	}
	if got := count(); got != 0 {
		t.Errorf("%d dead letters are left", got)
	}
	w.golden("dlq-list-empty", w.must("dlq", "list"))
}

func TestDeadLettersAreRemovedByNameOrKind(t *testing.T) {
	w, ids := settledWorld(t)
	w.must("dlq", "remove", ids[2]+"~orders~tell")
	if out := w.must("dlq", "stats"); strings.Contains(out, "exhausted") || !strings.Contains(out, "3 dead letters in all") {
		t.Errorf("after the first:\n%s", out)
	}
	if out := w.must("dlq", "remove", "--reason", "condition"); out != "3 dead letters removed\n" {
		t.Errorf("of a kind: %s", out)
	}
	for what, letter := range map[string]string{"one that is gone": "1", "one that can't be": "0"} {
		if _, err := w.run("dlq", "remove", letter); !errors.Is(err, deadletter.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestShortenedListsSaySo(t *testing.T) {
	w, _ := settledWorld(t)
	w.later("shop-1-0000000000000999-7-1")
	w.later("shop-1-0000000000000998-7-1")
	const more = "There are more"
	for _, list := range [][]string{{"events", "list"}, {"dlq", "list"}, {"jobs", "list"}} {
		if out := w.must(append(list, "--limit", "1")...); !strings.Contains(out, more) || strings.Count(out, "\n") != 3 {
			t.Errorf("%v --limit 1:\n%s", list, out)
		}
		if out := w.must(append(list, "--limit", "1000")...); strings.Contains(out, more) {
			t.Errorf("%v --limit 1000:\n%s", list, out)
		}
		if out := w.must(append(list, "--limit", "1", "-o", "json")...); strings.Contains(out, more) {
			t.Errorf("%v -o json:\n%s", list, out)
		}
	}
}

func TestJobsAreListedShownCancelledAndHurried(t *testing.T) {
	w, _ := settledWorld(t)
	w.sink.fail(false)
	key, other := w.later("shop-1-0000000000000999-7-1"), w.later("shop-1-0000000000000998-7-1")
	w.golden("jobs-list", w.must("jobs", "list", "--state", "scheduled"))
	w.golden("jobs-show", w.must("jobs", "show", short(key)))
	w.golden("jobs-cancel", w.must("jobs", "cancel", short(other)))
	w.must("jobs", "run-now", key)
	eventually(t, "the job is done", func() bool { return strings.Contains(w.must("jobs", "show", key), "done since") })
	if got := w.sink.done(other); got != 0 {
		t.Errorf("the cancelled job was done %d times", got)
	}
	for _, args := range [][]string{{"jobs", "run-now", key}, {"jobs", "cancel", key}, {"jobs", "show", "0000000000"}, {"jobs", "show", "no~such~job"}} {
		if _, err := w.run(args...); err == nil {
			t.Errorf("%v succeeds", args)
		}
	}
}

func TestObserversAreListedTestedAndValidated(t *testing.T) {
	w := newWorld(t)
	w.golden("observers-list", w.must("observers", "list"))
	w.golden("observers-validate", w.must("observers", "validate"))
	id := w.update(3, "new", "shipped")
	fromStream := w.must("observers", "test", id)
	w.golden("observers-test", fromStream)
	file := filepath.Join(t.TempDir(), "event.json")
	shown := w.must("events", "show", id, "-o", "json")
	var stored struct{ Event json.RawMessage }
	if err := json.Unmarshal([]byte(shown), &stored); err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"what show prints": shown, "an envelope": string(stored.Event)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := strings.Replace(w.must("observers", "test", file), "events.000.", "events.003.", 1)
		if !strings.Contains(got, "shipped: matches, its condition is true") || !strings.Contains(got, `"order": 3`) {
			t.Errorf("%s in a file gives\n%s", what, got)
		}
		fromInput, err := run(t, w.config, strings.NewReader(text), "observers", "test", "-")
		if err != nil || !strings.Contains(fromInput, "order 3 was shipped") {
			t.Errorf("%s on standard input gives %v\n%s", what, err, fromInput)
		}
	}
	broken := filepath.Join(t.TempDir(), "broken.yaml")
	if err := os.WriteFile(broken, []byte("observers:\n  - name: o\n    when: after.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.run("observers", "validate", broken); err == nil || !strings.Contains(err.Error(), "broken.yaml:3:") {
		t.Errorf("a broken file: %v", err)
	}
}

func TestWrongUseIsAUsageError(t *testing.T) {
	w := newWorld(t)
	for name, args := range map[string][]string{
		"no command":            {},
		"an unknown command":    {"dance"},
		"no subcommand":         {"dlq"},
		"no event":              {"events", "show"},
		"an unknown flag":       {"status", "--colour"},
		"an unknown format":     {"status", "-o", "xml"},
		"an unknown reason":     {"dlq", "list", "--reason", "tired"},
		"an unknown operation":  {"events", "list", "--op", "upsert"},
		"an unknown state":      {"jobs", "list", "--state", "asleep"},
		"a time that is none":   {"events", "list", "--since", "yesterday"},
		"no limit":              {"jobs", "list", "--limit", "0"},
		"half a part":           {"events", "list", "--entity", "public.ord*"},
		"removal of nothing":    {"dlq", "remove"},
		"removal in two ways":   {"dlq", "remove", "1", "--all"},
		"a watch without pause": {"status", "--watch", "--every", "1ms"},
		"an unknown shell":      {"completion", "tcsh"},
	} {
		_, err := w.run(args...)
		var usage *config.UsageError
		if !errors.As(err, &usage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNATSAwayIsToldWithinSeconds(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	away, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = away.Close()
	for name, address := range map[string]string{"nobody listens": away.Addr().String(), "nobody answers": silent.Addr().String()} {
		var c config.Config
		c.NATS.URL = "nats://somebody:secret@" + address
		begun := stall.Begin(t)
		_, err := run(t, c, nil, "status")
		begun.Within(5*time.Second, name+", told")
		if err == nil || !strings.Contains(err.Error(), "connect to nats://"+address) || !strings.Contains(err.Error(), "nats.url") {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the password is told: %v", name, err)
		}
	}
}

func TestNothingSetUpIsTold(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"EVENTS", "DEADLETTERS", "KV_jobs"} {
		if err := w.js.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"status"}, {"events", "list"}, {"dlq", "list"}, {"dlq", "stats"}, {"jobs", "list"}, {"jobs", "show", "a~b~c"}, {"events", "explain", "1"}} {
		if _, err := w.run(args...); err == nil || !strings.Contains(err.Error(), "start a service") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestDataCanNotWriteToTheTerminal(t *testing.T) {
	w := newWorld(t)
	hostile := "\x1b]0;owned\x07\x1b[31mred\u202e\r\nsecond"
	err := deadletter.New(w.js).Write(t.Context(), deadletter.Record{
		ID: "x", Reason: deadletter.Undecodable, Error: hostile, Raw: []byte(hostile), Subject: "publish." + "a.b.c",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"dlq", "list"}, {"dlq", "show", "1"}, {"dlq", "list", "-o", "json"}, {"dlq", "show", "1", "-o", "json"}} {
		out := w.must(args...)
		if strings.ContainsAny(out, "\x1b\x07\r") {
			t.Errorf("%v prints control characters: %q", args, out)
		}
		if !strings.Contains(out, "second") {
			t.Errorf("%v hides what there is: %q", args, out)
		}
	}
}

func TestCompletionOffersCommandsAndFlags(t *testing.T) {
	w := newWorld(t)
	script := w.must("completion", "bash")
	shell, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash")
	}
	for line, want := range map[string]string{
		"tributary st":                     "status",
		"tributary dlq re":                 "remove retry retry-all",
		"tributary events explain --o":     "--observers --output",
		"tributary -o json jobs c":         "cancel",
		"tributary dlq retry 12 --dry":     "--dry-run",
		"tributary status --watch --every": "--every",
	} {
		words := strings.Fields(line)
		command := script + "\nCOMP_WORDS=(" + line + ")\nCOMP_CWORD=" + string(rune('0'+len(words)-1)) + "\n_tributary\nprintf '%s\\n' \"${COMPREPLY[@]}\" | sort | xargs"
		out, err := exec.Command(shell, "-c", command).CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != want {
			t.Errorf("%s offers %q, want %q (%v)", line, got, want, err)
		}
	}
	for _, other := range []string{"zsh", "fish"} {
		out := w.must("completion", other)
		for _, want := range []string{"retry-all", "rerender", "explain"} {
			if !strings.Contains(out, want) {
				t.Errorf("the script of %s lacks %s", other, want)
			}
		}
	}
}

func TestVersionIsPrinted(t *testing.T) {
	if out, err := run(t, config.Config{}, nil, "version"); err != nil || out != "v1.2.3\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestObserversAreAppliedWhole(t *testing.T) {
	w := newWorld(t)
	file := w.config.Observers
	w.config.Observers = ""
	if _, err := w.run("observers", "list"); err == nil || !strings.Contains(err.Error(), "--observers FILE") {
		t.Errorf("before: %v", err)
	}
	w.golden("observers-apply-dry", w.must("observers", "apply", file, "--dry-run"))
	if _, err := w.run("observers", "list"); err == nil {
		t.Error("a dry run has put observers in force")
	}
	w.golden("observers-diff-new", w.must("observers", "diff", file))
	w.golden("observers-apply", w.must("observers", "apply", file))
	w.golden("observers-diff-same", w.must("observers", "diff", file))
	w.golden("observers-list", w.must("observers", "list"))
	if out := w.must("observers", "apply", file); !strings.Contains(out, "in force already") {
		t.Errorf("again: %s", out)
	}
	renamed := strings.Replace(strings.Replace(rules, "name: tell", "name: inform", 1), "name: big", "name: large", 1)
	renamed = strings.Replace(renamed, "message: a cart", "message: the cart", 1)
	if err := os.WriteFile(file, []byte(renamed), 0o600); err != nil {
		t.Fatal(err)
	}
	w.golden("observers-diff-renamed", w.must("observers", "diff", file))
	w.golden("observers-diff-renamed-json", w.must("observers", "diff", file, "-o", "json"))
	w.golden("observers-apply-renamed", w.must("observers", "apply", file))
	if out := w.must("observers", "schema"); !strings.Contains(out, "json-schema.org") {
		t.Errorf("the schema is %.100s", out)
	}
	id := w.insert(1)
	if out := w.must("observers", "test", id); !strings.Contains(out, "orders/inform") {
		t.Errorf("what is in force makes of an event:\n%s", out)
	}
}
