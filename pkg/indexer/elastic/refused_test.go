package elastic_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/indexer/elastic"
	"github.com/tributary-dev/tributary/pkg/indexer/indextest"
	"github.com/tributary-dev/tributary/streams"
	"github.com/tributary-dev/tributary/test/elasticsearch"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func nested(depth int) string {
	return `{"id":1,"a":` + strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth) + "}"
}

func TestTheServerRefusesOnlyWhatItCannotMap(t *testing.T) {
	x := open(t, elastic.Options{URL: elasticsearch.URL(t)})
	number := 0
	for name, c := range map[string]struct {
		row   string
		state indexer.State
	}{
		"a plain row":                 {`{"id":1}`, indexer.Created},
		"a deep row":                  {nested(90), indexer.Created},
		"too deep a row":              {nested(200), indexer.Refused},
		"deeper than the parser goes": {nested(2000), indexer.Refused},
		"a name twice":                {`{"id":1,"j":{"a":1,"a":2}}`, indexer.Refused},
		"a name that is too long":     {`{"id":1,"` + strings.Repeat("k", 33_000) + `":"v"}`, indexer.Refused},
		"a name with a zero byte":     {`{"id":1,"a\u0000b":"v"}`, indexer.Refused},
		"a value that is too long":    {`{"id":1,"a":"` + strings.Repeat("x", 100_000) + `"}`, indexer.Created},
		"a value of wide characters":  {`{"id":1,"` + strings.Repeat("k", 100) + `":"` + strings.Repeat("€", 8191) + `"}`, indexer.Created},
		"a word that is too long":     {`{"id":1,"a":"` + strings.Repeat("😀x", 50_000) + `"}`, indexer.Created},
		"half a pair of surrogates":   {`{"id":1,"a":"\ud800"}`, indexer.Created},
		"a zero byte":                 {`{"id":1,"a":"\u0000"}`, indexer.Created},
		"a number beyond all":         {`{"id":1,"a":1e999999}`, indexer.Created},
		"a number of many digits":     {`{"id":1,"a":` + strings.Repeat("9", 2000) + `}`, indexer.Refused},
		"the types that others have":  {`{"id":"text","status":{"was":"a text"},"time":"never"}`, indexer.Created},
		"many columns":                {manyColumns(5000), indexer.Created},
	} {
		t.Run(name, func(t *testing.T) {
			number++
			outcomes, err := x.Write(t.Context(), indextest.Documents(t, indextest.Row(number, events.OpInsert, "", c.row)))
			if err != nil || outcomes[0].State != c.state {
				t.Errorf("%+v %v", outcomes, err)
			}
		})
	}
}

func manyColumns(n int) string {
	var b strings.Builder
	b.WriteString(`{"id":1`)
	for i := range n {
		fmt.Fprintf(&b, `,"c%d":%d`, i, i)
	}
	return b.String() + "}"
}

func TestTheTemplateIsAsTheGoldenFileHasIt(t *testing.T) {
	const golden = "testdata/template.json"
	url := elasticsearch.URL(t)
	open(t, elastic.Options{URL: url}) // of this version, so that it can be read back
	var body struct {
		Templates []struct {
			Name     string          `json:"name"`
			Template json.RawMessage `json:"index_template"`
		} `json:"index_templates"`
	}
	if err := json.Unmarshal([]byte(call(t, http.MethodGet, url+"/_index_template/test-*", "")), &body); err != nil || len(body.Templates) == 0 {
		t.Fatal(err, body)
	}
	var got bytes.Buffer
	first := body.Templates[0]
	if err := json.Indent(&got, bytes.ReplaceAll(first.Template, []byte(first.Name), []byte("tributary-events")), "", "  "); err != nil {
		t.Fatal(err)
	}
	got.WriteByte('\n')
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("the template is not as in %s (-update rewrites it; raise templateVersion):\n%s", golden, diff)
	}
}

func TestIndicesOfALongerPrefixAreOthers(t *testing.T) {
	url := elasticsearch.URL(t)
	x := open(t, elastic.Options{URL: url})
	if _, err := x.Write(t.Context(), indextest.Documents(t, indextest.Row(1, events.OpInsert, "", `{"id":1}`))); err != nil {
		t.Fatal(err)
	}
	name := indexOf(t, url)
	longer := strings.Replace(name, "-2026.11", "-eu-2026.11", 1)
	call(t, http.MethodPut, url+"/"+longer+"/_doc/1?refresh=true", `{"id":"1"}`)
	t.Cleanup(func() { call(t, http.MethodDelete, url+"/"+longer, "") })
	if got := documents(t, x, url); got != 1 {
		t.Errorf("%d documents are told of, want 1", got)
	}
	if got := monthsOf(t, x); len(got) != 1 {
		t.Errorf("the months are %v", got)
	}
	if got := call(t, http.MethodGet, url+"/"+longer+"/_mapping", ""); strings.Contains(got, "flattened") {
		t.Errorf("the other index has our mapping: %s", got)
	}
}

func TestATemplateOfOthersStays(t *testing.T) {
	url := elasticsearch.URL(t)
	for name, c := range map[string]struct {
		meta string
		want string // what the description becomes
	}{
		"somebody else's": {`"version":1`, "theirs"},
		"a newer one":     {`"version":1000,"_meta":{"managed_by":"tributary"}`, "theirs"},
		"an older one":    {`"version":0,"_meta":{"managed_by":"tributary"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			prefix := fmt.Sprintf("other-%d", prefixes.Add(1))
			at := url + "/_index_template/" + prefix
			call(t, http.MethodPut, at, `{"index_patterns":["`+prefix+`-*"],`+c.meta+`,"template":{"aliases":{"theirs":{}}}}`)
			t.Cleanup(func() { call(t, http.MethodDelete, at, "") })
			x, err := elastic.New(elastic.Options{URL: url, Prefix: prefix})
			if err != nil {
				t.Fatal(err)
			}
			defer x.Close()
			if err := x.Prepare(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := call(t, http.MethodGet, at, ""); strings.Contains(got, "theirs") != (c.want == "theirs") {
				t.Errorf("the template is %s", got)
			}
		})
	}
}

// run runs an indexer on an index until the test ends.
func run(t *testing.T, x *elastic.Index, options indexer.Options) (*natstest.Server, func(n int)) {
	t.Helper()
	server := natstest.Start(t)
	js := server.JetStream(t)
	if _, err := streams.Apply(t.Context(), js, streams.Options{}); err != nil {
		t.Fatal(err)
	}
	loop, err := indexer.New(js, x, deadletter.New(js), options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		loop.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return server, func(n int) {
		t.Helper()
		ticker := time.NewTicker(50 * time.Millisecond)
		defer ticker.Stop()
		for range 1200 {
			consumer, err := js.Consumer(t.Context(), events.StreamEvents, indexer.ConsumerName)
			if err == nil {
				info := consumer.CachedInfo()
				if info.AckFloor.Stream >= uint64(n) && info.NumAckPending == 0 {
					return
				}
			}
			<-ticker.C
		}
		t.Fatalf("%d events are not settled after a minute", n)
	}
}

func store(t *testing.T, server *natstest.Server, messages ...indexer.Message) {
	t.Helper()
	js := server.JetStream(t)
	for _, m := range messages {
		if _, err := js.Publish(t.Context(), m.Subject, m.Data); err != nil {
			t.Fatal(err)
		}
	}
}

func documents(t *testing.T, x *elastic.Index, url string) int {
	t.Helper()
	refresh(t, url)()
	info, err := x.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return info.Documents
}

func TestRefusedEventsAreDeadLettersAndTheOthersAreIndexed(t *testing.T) {
	url := elasticsearch.URL(t)
	x := open(t, elastic.Options{URL: url})
	server, settled := run(t, x, indexer.Options{})
	var messages []indexer.Message
	for n := range 20 {
		row := `{"id":1}`
		if n%5 == 0 {
			row = nested(200)
		}
		messages = append(messages, indextest.Row(n+1, events.OpInsert, "", row))
	}
	store(t, server, messages...)
	settled(20)
	if got := documents(t, x, url); got != 16 {
		t.Errorf("%d documents, want 16", got)
	}
	dead, err := deadletter.List(t.Context(), server.JetStream(t), 0, 100)
	if err != nil || len(dead) != 4 {
		t.Fatalf("%d dead letters, %v", len(dead), err)
	}
	if got := dead[0].Record; got.Reason != deadletter.Mapping || !strings.Contains(got.Error, "maximum depth limit") || string(got.Event) != string(messages[0].Data) {
		t.Errorf("%s %s", got.Reason, got.Error)
	}
}

func TestAClosedIndexIsWaitedFor(t *testing.T) {
	url := elasticsearch.URL(t)
	x := open(t, elastic.Options{URL: url})
	waits := make(chan string, 100)
	server, settled := run(t, x, indexer.Options{Ready: func(ok bool, why string) {
		if !ok {
			select {
			case waits <- why:
			default:
			}
		}
	}})
	store(t, server, indextest.Row(1, events.OpInsert, "", `{"id":1}`))
	settled(1)
	months := indexOf(t, url)
	call(t, http.MethodPost, url+"/"+months+"/_close", "")
	store(t, server, indextest.Row(2, events.OpInsert, "", `{"id":2}`))
	if why := <-waits; !strings.Contains(why, "index_closed_exception") {
		t.Errorf("it waits because of %s", why)
	}
	call(t, http.MethodPost, url+"/"+months+"/_open", "")
	settled(2)
	if got := documents(t, x, url); got != 2 {
		t.Errorf("%d documents, want 2", got)
	}
}

// indexOf names the index of 2026.11 that was made last.
func indexOf(t *testing.T, url string) string {
	t.Helper()
	names := strings.Fields(call(t, http.MethodGet, url+"/_cat/indices/test-*-2026.11?h=index&s=creation.date:desc", ""))
	if len(names) == 0 {
		t.Fatal("there is no index")
	}
	return names[0]
}

func TestALargeBulkIsSplitUntilTheServerTakesIt(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server")
	}
	url := elasticsearch.Start(t, "--set", "http.max_content_length=200kb").URL
	x := open(t, elastic.Options{URL: url})
	server, settled := run(t, x, indexer.Options{})
	var messages []indexer.Message
	for n := range 100 {
		messages = append(messages, indextest.Row(n+1, events.OpInsert, "", `{"id":1,"note":"`+strings.Repeat("x", 10_000)+`"}`))
	}
	messages = append(messages, indextest.Row(101, events.OpInsert, "", `{"id":1,"note":"`+strings.Repeat("x", 100_000)+`"}`))
	store(t, server, messages...)
	settled(101)
	if got := documents(t, x, url); got != 100 {
		t.Errorf("%d documents, want 100", got)
	}
	dead, err := deadletter.List(t.Context(), server.JetStream(t), 0, 100)
	if err != nil || len(dead) != 1 || !strings.Contains(dead[0].Record.Error, "413") {
		t.Errorf("%d dead letters, %v", len(dead), err)
	}
}

func TestAServerUnderPressureGetsEverythingInTheEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server")
	}
	url := elasticsearch.Start(t, "--set", "indexing_pressure.memory.limit=256kb").URL
	x := open(t, elastic.Options{URL: url})
	registry, pressed := newCounter()
	server, settled := run(t, x, indexer.Options{BulkBytes: 200 << 10, Concurrency: 4, Metrics: indexer.NewMetrics(registry)})
	var messages []indexer.Message
	for n := range 1000 {
		messages = append(messages, indextest.Row(n+1, events.OpInsert, "", `{"id":1,"note":"`+strings.Repeat("x", 1000)+`"}`))
	}
	store(t, server, messages...)
	settled(1000)
	if got := documents(t, x, url); got != 1000 {
		t.Errorf("%d documents, want 1000", got)
	}
	if pressed(t) == 0 {
		t.Error("nothing was rejected: the test shows nothing")
	}
}

func TestCredentialsAreAskedFor(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server")
	}
	url := elasticsearch.Start(t, "--password", "hunter2hunter2").URL
	good := elastic.Options{URL: url, Username: "tester", Password: "hunter2hunter2", Prefix: "secured"}
	x, err := elastic.New(good)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if err := x.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if outcomes, err := x.Write(t.Context(), three(t)); err != nil || outcomes[0].State != indexer.Created {
		t.Errorf("%v %v", outcomes, err)
	}
	for name, options := range map[string]elastic.Options{
		"none":             {URL: url},
		"a wrong password": {URL: url, Username: "tester", Password: "wrong"},
		"a wrong key":      {URL: url, APIKey: "d3Jvbmc6a2V5"},
	} {
		t.Run(name, func(t *testing.T) {
			x, err := elastic.New(options)
			if err != nil {
				t.Fatal(err)
			}
			defer x.Close()
			if err := x.Prepare(t.Context()); !errors.Is(err, elastic.ErrDenied) {
				t.Errorf("got %v", err)
			}
		})
	}
}
