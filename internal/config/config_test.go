package config_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tributary-dev/tributary/internal/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// write makes a configuration file of text, in a folder of its own.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tributary.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheSmallestFileThatWorksLoads(t *testing.T) {
	c, rest, err := config.Load(config.Request{
		Service: "ingest",
		Args:    []string{"--config", "testdata/smallest.yaml"},
		Environ: []string{"SHOP_URL=postgres://app:hunter2@db/shop"},
		Require: []string{"nats", "sources"},
	})
	if err != nil || len(rest) > 0 {
		t.Fatal(err, rest)
	}
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	want := config.Config{
		NATS: config.NATS{URL: "nats://127.0.0.1:4222", Replicas: 1},
		Sources: []config.Source{{
			Name: "shop", Tables: []string{"public.*"}, Slot: "tributary_shop", Publication: "tributary_shop",
			Snapshot: true, SnapshotParallel: 2, Heartbeat: 10 * time.Second, ReceiveTimeout: 20 * time.Second,
		}},
		Ingest: config.Ingest{Rewind: 4 * time.Minute, RewindBytes: 1 << 30, QueueBytes: 8 << 20, Inbox: true, Checkpoints: true},
		Events: config.Events{Partitions: 16},
		Circuits: config.Circuits{
			FailurePercent: 50, MinCalls: 20, Window: 30 * time.Second, OpenFor: 10 * time.Second, Probes: 5, Ramp: 5 * time.Second,
			ParkMaxAge: 24 * time.Hour,
		},
		Observers: filepath.Join(dir, "observers.yaml"),
		Actions:   config.Actions{AllowPrivate: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		Worker:    config.Worker{Concurrency: 64},
		Dedup:     config.Dedup{Window: 5 * time.Minute, OnError: "wait"},
		Jobs:      config.Jobs{Concurrency: 64, Keep: 24 * time.Hour},
		Traces:    config.Traces{Sample: 1},
		Indexer: config.Indexer{
			Elasticsearch: "http://127.0.0.1:9200", Index: "tributary-events", BulkCount: 2000, BulkBytes: 8 << 20,
			BulkAge: 500 * time.Millisecond, Concurrency: 2, QueueBytes: 32 << 20,
		},
		HTTP:            config.HTTP{Listen: "127.0.0.1:0"},
		Log:             config.Log{Level: "info", Format: "text"},
		StateDir:        filepath.Join(dir, ".tributary"),
		ShutdownTimeout: 10 * time.Second,
	}
	ignore := []cmp.Option{
		cmpopts.IgnoreUnexported(config.Config{}), cmpopts.IgnoreFields(config.Source{}, "Postgres", "MaskKey"),
		cmpopts.IgnoreFields(config.Indexer{}, "Password", "APIKey"),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
	if diff := cmp.Diff(want, c, ignore...); diff != "" {
		t.Error(diff)
	}
	if address, err := c.Sources[0].Postgres.Resolve(); err != nil || address != "postgres://app:hunter2@db/shop" {
		t.Errorf("the source's database: got %q, %v", address, err)
	}
}

func TestNothingIsNeededWhereNothingIsRequired(t *testing.T) {
	c, _, err := config.Load(config.Request{Service: "tributary"})
	if err != nil || c.NATS.URL != "" || c.Worker.Concurrency != 64 || !filepath.IsAbs(c.StateDir) {
		t.Errorf("got %+v, %v", c, err)
	}
}

func TestFilesAreRefusedWithKeyPlaceAndRemedy(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"a key misspelled":             {"worker:\n  concurency: 5", []string{":2:3: worker.concurency is no key; did you mean worker.concurrency?", "2 |   concurency: 5\n    |   ^"}},
		"a key of nobody":              {"colour: blue", []string{":1:1: colour is no key; the file may hold nats, sources,"}},
		"a key of another section":     {"dedup: {url: x}", []string{"dedup.url is no key; dedup may hold window, on_error"}},
		"a merge key":                  {"a: &a {x: 1}\nworker: {<<: *a}", []string{"worker.<< is no key"}},
		"a number too small":           {"\nworker: {concurrency: 0}", []string{"tributary.yaml:2: worker.concurrency must be at least 1, got 0"}},
		"a number too large":           {"events: {partitions: 1000}", []string{"events.partitions must be at most 999, got 1000"}},
		"no number":                    {"worker: {concurrency: many}", []string{`:1:23: worker.concurrency must be a whole number, got "many"`}},
		"a share above all":            {"traces: {sample: 1.5}", []string{"traces.sample must be at most 1, got 1.5"}},
		"a share that is none":         {"traces: {sample: NaN}", []string{`traces.sample must be a number such as 0.5, got "NaN"`}},
		"TLS with a stranger's key":    {"actions: {tls: [{host: a.example, certificate: a.pem}]}", []string{"actions.tls[0].certificate is no key"}},
		"half a number":                {"worker: {concurrency: 1.5}", []string{`worker.concurrency must be a whole number, got "1.5"`}},
		"no truth":                     {"ingest: {inbox: yes}", []string{`ingest.inbox must be true or false, got "yes"`}},
		"a duration without unit":      {"ingest: {rewind: 10}", []string{`ingest.rewind must be a duration such as 250ms, 10s, 4m, 24h or 7d, got "10"`}},
		"a negative duration":          {"ingest: {rewind: -1s}", []string{"ingest.rewind must be at least 0s, got -1s"}},
		"no size":                      {"ingest: {queue_bytes: big}", []string{`ingest.queue_bytes must be a size such as`}},
		"a size beyond 64 bits":        {"ingest: {rewind_bytes: 9999999999GiB}", []string{`ingest.rewind_bytes must be a size`}},
		"no choice":                    {"dedup: {on_error: panic}", []string{`dedup.on_error must be wait or run, got "panic"`}},
		"two replicas":                 {"nats: {replicas: 2}", []string{"nats.replicas must be 1 or 3 or 5"}},
		"a host as a network":          {"actions: {allow_private: [10.0.0.1/8]}", []string{"actions.allow_private", "write 10.0.0.0/8"}},
		"no network":                   {"actions: {allow_private: [10.0.0.0/8, intranet]}", []string{`actions.allow_private must be a list; each item must be a network such as 10.0.0.0/8 or fd00::/8, got "intranet"`}},
		"an endpoint without its port": {"endpoints: [{name: 'https://carrier.example', rate: 10/s}]", []string{`endpoints[0].name must be scheme://host:port and no more, such as https://carrier.example:443, got "https://carrier.example"`}},
		"an endpoint with a path":      {"endpoints: [{name: 'http://Carrier.example:8080/hooks', rate: 10/s}]", []string{`such as http://carrier.example:8080, got`}},
		"an endpoint of no host":       {"endpoints: [{name: 'http://', rate: 10/s}]", []string{`such as https://carrier.example:443, got "http://"`}},
		"no NATS address":              {"nats: {url: 'http://x'}", []string{`nats.url must be nats://host:port, or several separated by commas, got "http://x"`}},
		"no Elasticsearch address":     {"indexer: {elasticsearch: 'localhost:9200'}", []string{"indexer.elasticsearch must be http://host:port"}},
		"a password in the file":       {"indexer: {username: u, password: hunter2}", []string{"indexer.password must be env:NAME or file:PATH (the value is not shown)"}},
		"a user without password":      {"indexer: {username: u}", []string{"indexer.username must not be set without indexer.password"}},
		"a user and an API key":        {"indexer: {username: u, password: env:P, api_key: env:K}", []string{"indexer.api_key must not be set beside indexer.username"}},
		"no name of an index":          {"indexer: {index: Events}", []string{`indexer.index must be of a-z, 0-9, -, _ and ., and begin with a letter or digit, got "Events"`}},
		"a bulk above the queue":       {"indexer: {bulk_bytes: 16MiB, queue_bytes: 8MiB}", []string{"indexer.bulk_bytes must be at most indexer.queue_bytes (8MiB), got 16MiB"}},
		"no address to listen at":      {"http: {listen: 9090}", []string{`http.listen must be host:port, such as 127.0.0.1:0 or :9090, got "9090"`}},
		"a value for a section":        {"worker: 5", []string{"worker must be keys with values, got a single value"}},
		"a section for a value":        {"observers: {a: 1}", []string{"observers must be one value, got keys with values"}},
		"sources without a list":       {"sources: {name: shop}", []string{"sources must be a list, each item beginning with -, got keys with values"}},
		"a source without a name":      {"sources: [{postgres: env:X}]", []string{"sources[0].name must be set"}},
		"a source's name in caps":      {"sources: [{name: Shop, postgres: env:X}]", []string{`sources[0].name must match [a-z][a-z0-9_]{0,52}, got "Shop"`}},
		"a name twice":                 {"sources: [{name: a, postgres: env:X}, {name: a, postgres: env:Y}]", []string{`sources[1].name must be another than that of sources[0], got "a"`}},
		"a slot twice":                 {"sources: [{name: a, postgres: env:X, slot: s}, {name: b, postgres: env:X, slot: s}]", []string{`sources[1].slot must be another than that of sources[0] on the same database`}},
		"no slot":                      {"sources: [{name: a, postgres: env:X, slot: My-Slot}]", []string{`sources[0].slot must be 1 to 63 of a-z, 0-9 and _, got "My-Slot"`}},
		"a source without address":     {"sources: [{name: a}]", []string{"sources[0].postgres must be set"}},
		"only tables left out":         {"sources: [{name: a, postgres: env:X, tables: ['!public.a']}]", []string{"sources[0].tables must name a table to publish"}},
		"no operation":                 {"sources: [{name: a, postgres: env:X, ops: [insert, upsert]}]", []string{`sources[0].ops must be of [insert update delete truncate snapshot message], got "upsert"`}},
		"no way to mask":               {"sources: [{name: a, postgres: env:X, mask: {u.mail: md5}}]", []string{`sources[0].mask must be sha256, hmac or redact for u.mail, got "md5"`}},
		"a mask without a way":         {"sources: [{name: a, postgres: env:X, mask: {u.mail: }}]", []string{"sources[0].mask must give u.mail one value"}},
		"a list of masks":              {"sources: [{name: a, postgres: env:X, mask: [u.mail]}]", []string{"sources[0].mask must be names with values, got a list"}},
		"a mask without its key":       {"sources: [{name: a, postgres: env:X, mask: {u.mail: hmac}}]", []string{"sources[0].mask_key must be set, to env:NAME or file:PATH"}},
		"a mask's key in the file":     {"sources: [{name: a, postgres: env:X, mask_key: hunter2}]", []string{"sources[0].mask_key must be env:NAME or file:PATH (the value is not shown)"}},
		"a table without schema":       {"sources: [{name: a, postgres: env:X, tables: [orders]}]", []string{`sources[0].tables must be schema.table`}},
		"no YAML":                      {"worker: {concurrency: 5", []string{"tributary.yaml:1:"}},
		"a key twice":                  {"worker: {}\nworker: {}", []string{"tributary.yaml:2:1:", "worker"}},
		"two documents":                {"worker: {}\n---\njobs: {}", []string{"a second document begins here"}},
		"an unknown alias":             {"observers: *gone", []string{"no anchor &gone"}},
		"a tag":                        {"observers: !!str x", []string{"has no meaning here"}},
		"all errors at once":           {"worker: {concurrency: 0}\njobs: {concurrency: 0}", []string{"worker.concurrency must", "jobs.concurrency must"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, c.text)
			_, _, err := config.Load(config.Request{Service: "worker", Args: []string{"--config=" + path}})
			if err == nil {
				t.Fatal("accepted")
			}
			if usage := new(*config.UsageError); errors.As(err, usage) {
				t.Error("a wrong file is no wrong command line")
			}
			for _, want := range append(c.want, path) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v\nwant %s in it", err, want)
				}
			}
		})
	}
}

func TestFilesMayBeWrittenInManyWays(t *testing.T) {
	for name, text := range map[string]string{
		"empty sections":           "worker:\nnats:\nsources:\nobservers:\n",
		"nothing":                  "",
		"comments":                 "# nothing yet\n",
		"anchors":                  "sources:\n  - {name: a, postgres: env:A, tables: &t [public.*]}\n  - {name: b, postgres: env:B, tables: *t}\n",
		"one value for a list":     "actions: {allow_private: 10.1.2.3}",
		"endpoints":                "endpoints: [{name: 'http://[::1]:80', rate: 10/s}, {name: carrier}, {name: 'slack:env:SLACK_URL', concurrency: 1}]",
		"quoted numbers":           "worker: {concurrency: '8'}",
		"block style":              "sources:\n- name: shop\n  postgres: postgres://u:p@h/d\n  tables:\n  - public.orders\n",
		"several servers":          "nats: {url: 'nats://a:4222, b, tls://c'}",
		"a document that is begun": "---\nworker: {concurrency: 8}\n",
		"line ends of Windows":     "worker:\r\n  concurrency: 8\r\njobs: {keep: 7d}\r\n",
		"a byte order mark":        "\uFEFFworker: {concurrency: 8}\n",
		"zero rewind":              "ingest: {rewind: 0s}",
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := config.Load(config.Request{Service: "worker", Args: []string{"--config", write(t, text)}}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLaterSourcesWin(t *testing.T) {
	path := write(t, "worker: {concurrency: 2}\njobs: {concurrency: 2}\nevents: {partitions: 2}\nactions: {allow_private: [10.0.0.0/8]}\nhttp: {pprof: false}")
	c, _, err := config.Load(config.Request{
		Service: "worker",
		Args:    []string{"--worker.concurrency=4", "--http.pprof", "--observers", "rules", "--shutdown_timeout", "3s"},
		Environ: []string{
			"TRIBUTARY_CONFIG=" + path, "TRIBUTARY_WORKER_CONCURRENCY=3", "TRIBUTARY_JOBS_CONCURRENCY=3", "TRIBUTARY_EVENTS_PARTITIONS=",
			"TRIBUTARY_ACTIONS_ALLOW_PRIVATE=192.168.0.0/16, fd00::/8", "TRIBUTARY_STATE_DIR=/var/lib/tributary", "TRIBUTARY_UNRELATED=1",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	working, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range map[string][2]any{
		"flag over variable over file":       {c.Worker.Concurrency, 4},
		"variable over file":                 {c.Jobs.Concurrency, 3},
		"an empty variable is none":          {c.Events.Partitions, 2},
		"a flag without value is true":       {c.HTTP.PProf, true},
		"a list in a variable":               {fmt.Sprint(c.Actions.AllowPrivate), "[192.168.0.0/16 fd00::/8]"},
		"a top-level key in a variable":      {c.StateDir, "/var/lib/tributary"},
		"a top-level key in a flag":          {c.ShutdownTimeout, 3 * time.Second},
		"a flag's path is relative to where": {c.Observers, filepath.Join(working, "rules")},
	} {
		if values[0] != values[1] {
			t.Errorf("%s: got %v, want %v", name, values[0], values[1])
		}
	}
}

func TestVariablesAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ variable, want string }{
		"misspelled":          {"TRIBUTARY_WORKER_CONCURENCY=8", "TRIBUTARY_WORKER_CONCURENCY: no key of worker has this variable; did you mean TRIBUTARY_WORKER_CONCURRENCY?"},
		"a section":           {"TRIBUTARY_HTTP=1", "TRIBUTARY_HTTP: no key of http has this variable"},
		"a source":            {"TRIBUTARY_SOURCES_0_NAME=shop", "sources are a list, which no variable can set"},
		"a value not allowed": {"TRIBUTARY_WORKER_CONCURRENCY=no", `TRIBUTARY_WORKER_CONCURRENCY: worker.concurrency must be a whole number, got "no"`},
		"a value too small":   {"TRIBUTARY_WORKER_CONCURRENCY=0", `TRIBUTARY_WORKER_CONCURRENCY: worker.concurrency must be at least 1, got 0`},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := config.Load(config.Request{Service: "worker", Environ: []string{c.variable}})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestWrongFlagsAreUsageErrors(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"misspelled":       {[]string{"--worker.concurency", "8"}, "--worker.concurency is no flag; did you mean --worker.concurrency?"},
		"unknown":          {[]string{"--colour=blue"}, "--colour is no flag"},
		"short":            {[]string{"-v"}, "-v is no flag"},
		"without a value":  {[]string{"--config"}, "--config needs a value"},
		"with a bad value": {[]string{"--worker.concurrency", "x"}, "--worker.concurrency: worker.concurrency must be a whole number"},
		"a bare word":      {[]string{"start"}, `worker takes flags only, got "start"`},
		"a source":         {[]string{"--sources.name=a"}, "sources are a list, which no flag can set"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := config.Load(config.Request{Service: "worker", Args: c.args})
			var usage *config.UsageError
			if !errors.As(err, &usage) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %T %v, want a usage error with %s", err, err, c.want)
			}
		})
	}
}

func TestModeIsGivenBack(t *testing.T) {
	modes := []string{"--check", "--ready"}
	for name, c := range map[string]struct {
		args []string
		want []string
		err  string
	}{
		"none":               {[]string{"--worker.concurrency", "8"}, nil, ""},
		"one":                {[]string{"--check", "--worker.concurrency", "8"}, []string{"--check"}, ""},
		"one, twice":         {[]string{"--check", "--check"}, []string{"--check"}, ""},
		"two":                {[]string{"--check", "--ready"}, nil, "--check and --ready are two things: ask for one of them"},
		"one with a word":    {[]string{"--check", "all"}, nil, `worker takes flags only, got "all"`},
		"one that is none":   {[]string{"--chek"}, nil, "--chek is no flag; did you mean --check?"},
		"a bad value beside": {[]string{"--check", "--worker.concurrency", "0"}, nil, "--worker.concurrency: worker.concurrency must be at least 1, got 0"},
	} {
		_, rest, err := config.Load(config.Request{Service: "worker", Args: c.args, Modes: modes})
		if c.err == "" && err != nil || c.err != "" && (err == nil || err.Error() != c.err) {
			t.Errorf("%s: got %v, want %q", name, err, c.err)
		}
		if err == nil && !slices.Equal(rest, c.want) {
			t.Errorf("%s: got %q, want %q", name, rest, c.want)
		}
	}
}

func TestPassRestGivesBackWhatIsNotOfTheConfiguration(t *testing.T) {
	request := config.Request{
		Service: "tributary", PassRest: true,
		Args: []string{"dev", "--postgres", "postgres://x", "--worker.concurrency", "7", "--demo", "--help", "--", "--jobs.concurrency=1"},
	}
	c, rest, err := config.Load(request)
	want := []string{"dev", "--postgres", "postgres://x", "--demo", "--help", "--", "--jobs.concurrency=1"}
	if err != nil || c.Worker.Concurrency != 7 || c.Jobs.Concurrency != 64 || !reflect.DeepEqual(rest, want) {
		t.Errorf("got %v, rest %q, want %q", err, rest, want)
	}
	request.Args = []string{"--worker.colour", "7"}
	if usage := new(*config.UsageError); true {
		if _, _, err := config.Load(request); !errors.As(err, usage) {
			t.Errorf("a flag of no key in a section of ours: got %v", err)
		}
	}
}

func TestRequiredThingsAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want string
	}{
		"no NATS":                    {"worker: {}", "nats.url must be set"},
		"nothing to read":            {"nats: {url: a}\ningest: {inbox: false}", "sources must name a database, or ingest.inbox must be true"},
		"a variable that is not set": {"nats: {url: a}\nsources:\n - {name: shop, postgres: env:SHOP_URL}", "tributary.yaml:3: sources[0].postgres needs the environment variable SHOP_URL, which is not set"},
		"a file that is not there":   {"nats: {url: a}\nsources: [{name: shop, postgres: file:url.txt}]", "sources[0].postgres needs its file: open "},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, c.text)
			_, _, err := config.Load(config.Request{Service: "ingest", Args: []string{"--config", path}, Require: []string{"nats", "sources"}})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	path := write(t, "sources: [{name: shop, postgres: env:SHOP_URL}]")
	if _, _, err := config.Load(config.Request{Service: "worker", Args: []string{"--config", path}}); err != nil {
		t.Errorf("a service that reads no database needs no secret of it: %v", err)
	}
}

func TestSecretsAreRead(t *testing.T) {
	path := write(t, "sources:\n- {name: a, postgres: file:url.txt}\n- {name: b, postgres: 'postgresql://u:p@h/d'}\n")
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "url.txt"), []byte("postgres://from/file\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := config.Load(config.Request{Service: "ingest", Args: []string{"--config", path}, Require: []string{"sources"}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"postgres://from/file", "postgresql://u:p@h/d"} {
		if got, err := c.Sources[i].Postgres.Resolve(); err != nil || got != want {
			t.Errorf("source %d: got %q, %v, want %q", i, got, err, want)
		}
	}
}

func TestPasswordsAreShownNowhere(t *testing.T) {
	const password = "hunter2"
	for name, text := range map[string]string{
		"beside an error in the line":  "sources: [{name: shop, postgres: 'postgres://u:hunter2@h/d', colour: 1}]",
		"in an address that is broken": "sources: [{name: shop, postgres: 'postgres://u:hunter2@h:port/d'}]",
		"in words of libpq":            "sources: [{name: shop, postgres: 'host=h password=hunter2', colour: 1}]",
		"alone":                        "sources: [{name: shop, postgres: hunter2}]",
		"in the address of NATS":       "nats: {url: 'http://u:hunter2@h'}",
		"where a number should be":     "worker: {concurrency: 'nats://u:hunter2@h'}",
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := config.Load(config.Request{Service: "ingest", Args: []string{"--config", write(t, text)}})
			if err == nil || strings.Contains(err.Error(), password) {
				t.Errorf("got %v", err)
			}
		})
	}
	c, _, err := config.Load(config.Request{Service: "ingest", Args: []string{"--config", write(t, "sources: [{name: shop, postgres: 'postgres://u:hunter2@h/d?password=hunter2'}]")}})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("configured", "config", c, "secret", c.Sources[0].Postgres)
	slog.New(slog.NewTextHandler(&log, nil)).Info("configured", "config", c, "secret", c.Sources[0].Postgres)
	for _, print := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), fmt.Sprintf("%v", &c.Sources[0]), log.String()} {
		if strings.Contains(print, password) {
			t.Errorf("printed: %s", print)
		}
	}
}

func TestHelp(t *testing.T) {
	if _, _, err := config.Load(config.Request{Service: "worker", Args: []string{"--nats.url", "x", "--help"}}); !errors.Is(err, config.ErrHelp) {
		t.Errorf("got %v, want ErrHelp", err)
	}
	var help bytes.Buffer
	if err := config.Help(&help, "worker", "runs the actions that are due."); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/help.txt"
	if *update {
		if err := os.WriteFile(golden, help.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), help.String()); diff != "" {
		t.Errorf("help is not as in %s (-update rewrites it):\n%s", golden, diff)
	}
}

func TestEveryKeyIsExplained(t *testing.T) {
	for _, key := range config.Keys() {
		if key.Help == "" || key.Type == "" {
			t.Errorf("%s has no help or no type: %+v", key.Path, key)
		}
	}
}

func TestSizesArePrintedAsTheyAreRead(t *testing.T) {
	for text, want := range map[string]string{"1024": "1KiB", "1536MiB": "1536MiB", "1GB": "1000000000B", "0": "0B", "5 kB": "5000B", "2TiB": "2TiB"} {
		size, err := config.ParseSize(text)
		if err != nil || size.String() != want {
			t.Errorf("%s: got %s, %v, want %s", text, size, err, want)
		}
		if again, err := config.ParseSize(size.String()); err != nil || again != size {
			t.Errorf("%s: got %d again, %v, want %d", size, again, err, size)
		}
	}
}

func FuzzLoad(f *testing.F) {
	smallest, err := os.ReadFile("testdata/smallest.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(smallest))
	f.Add("sources: &a [*a]")
	f.Add("a: &a {b: *a}\nworker: *a")
	f.Fuzz(func(t *testing.T, text string) {
		path := write(t, text)
		c, _, err := config.Load(config.Request{Service: "worker", Args: []string{"--config", path}})
		if err == nil && c.Validate() != nil {
			t.Errorf("loaded, but not valid: %v", c.Validate())
		}
	})
}
