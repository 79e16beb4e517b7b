package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/internal/stall"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/indexer/embedded"
	"github.com/tributary-dev/tributary/pkg/indexer/query"
	"github.com/tributary-dev/tributary/test/elasticsearch"
	"github.com/tributary-dev/tributary/test/harness"
)

// cluster is an index in Elasticsearch that belongs to one test.
type cluster struct {
	t      *testing.T
	url    string
	prefix string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, url: elasticsearch.URL(t), prefix: fmt.Sprintf("e2e-%d", time.Now().UnixNano())}
	t.Cleanup(func() {
		for _, row := range c.list() {
			c.call(http.MethodDelete, "/"+row, nil, nil)
		}
		c.call(http.MethodDelete, "/_index_template/"+c.prefix, nil, nil)
	})
	return c
}

// config is the section of the configuration for an address of the server.
func (c *cluster) config(url string) string {
	return fmt.Sprintf("indexer: {elasticsearch: %q, index: %s}\n", url, c.prefix)
}

func (c *cluster) call(method, path string, body, into any) {
	c.t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		c.t.Fatal(err)
	}
	request, err := http.NewRequest(method, c.url+path, bytes.NewReader(data))
	if err != nil {
		c.t.Fatal(err)
	}
	if body == nil {
		request.Body, request.ContentLength = http.NoBody, 0
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err == nil && into != nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		c.t.Fatalf("%s %s: %v in %.200s", method, path, err, text)
	}
}

func (c *cluster) list() []string {
	var rows []struct{ Index string }
	c.call(http.MethodGet, "/_cat/indices/"+c.prefix+"-*?h=index&format=json", nil, &rows)
	var names []string
	for _, row := range rows {
		names = append(names, row.Index)
	}
	return names
}

// ids gives the _id of every document.
func (c *cluster) ids() []string {
	c.t.Helper()
	c.call(http.MethodPost, "/"+c.prefix+"-*/_refresh", nil, nil)
	var ids []string
	for after := []any(nil); ; {
		ask := map[string]any{"size": 10_000, "_source": false, "sort": []any{"effect_id"}}
		if after != nil {
			ask["search_after"] = after
		}
		var page struct {
			Hits struct {
				Hits []struct {
					ID   string `json:"_id"`
					Sort []any  `json:"sort"`
				} `json:"hits"`
			} `json:"hits"`
		}
		c.call(http.MethodPost, "/"+c.prefix+"-*/_search", ask, &page)
		if len(page.Hits.Hits) == 0 {
			return ids
		}
		for _, hit := range page.Hits.Hits {
			ids, after = append(ids, hit.ID), hit.Sort
		}
	}
}

// embeddedIDs gives the ids of the embedded index of a service that does not run.
func embeddedIDs(t *testing.T, s *harness.System, service string) []string {
	t.Helper()
	index, err := embedded.Open(filepath.Join(s.Dir, "state", service, "index"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = index.Close() }()
	found, err := index.Search(t.Context(), indexer.Request{Query: query.All{}, Size: 1_000_000, Sort: indexer.Oldest})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, document := range found.Documents {
		var body struct {
			ID string `json:"effect_id"`
		}
		if err := json.Unmarshal(document, &body); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, body.ID)
	}
	return ids
}

// waitForIndex waits until every event is acknowledged by the indexers.
func waitForIndex(t *testing.T, s *harness.System, most time.Duration) {
	t.Helper()
	js := s.JetStream()
	harness.Eventually(t, most, "every event is indexed", func() bool {
		consumer, err := js.Consumer(context.Background(), events.StreamEvents, indexer.ConsumerName)
		if err != nil {
			return false
		}
		info := consumer.CachedInfo()
		return info.NumPending == 0 && info.NumAckPending == 0
	})
}

// checkIDs fails the test unless the index holds the events of the stream, each once.
func checkIDs(t *testing.T, s *harness.System, got []string) {
	t.Helper()
	want := map[string]bool{}
	for _, e := range s.Events("shop") {
		want[e.Address.EffectID(e.Event)] = true
	}
	seen := map[string]bool{}
	for _, id := range got {
		if seen[id] {
			t.Errorf("the index holds %s twice", id)
		}
		if !want[id] {
			t.Errorf("the index holds %s, the stream does not", id)
		}
		seen[id] = true
	}
	if len(seen) != len(want) || len(got) != len(want) {
		t.Errorf("the index holds %d documents of %d ids, the stream %d", len(got), len(seen), len(want))
	}
}

func TestKilledIndexerIndexesEveryEventOnce(t *testing.T) {
	const kills = 8
	storm := func(t *testing.T, s *harness.System, names ...string) {
		s.Start("ingest")
		s.WaitForLeader()
		s.Start(names...)
		load := s.Write(20_000, 8, 500, 7)
		for i := range kills {
			time.Sleep(time.Duration(300+rand.IntN(1500)) * time.Millisecond) // at any point
			name := names[i%len(names)]
			s.Kill(name)
			s.Start(name)
		}
		changes := load.Wait()
		s.WaitForEvents(changes, time.Minute)
		waitForIndex(t, s, 2*time.Minute)
		s.Stop(names...)
		if n := s.CountDeadLetters(); n != 0 {
			t.Errorf("there are %d dead letters", n)
		}
	}
	t.Run("Elasticsearch", func(t *testing.T) {
		c := newCluster(t)
		s := harness.New(t, harness.Options{Config: c.config(c.url)})
		storm(t, s, "indexer", "indexer-2")
		checkIDs(t, s, c.ids())
	})
	t.Run("embedded", func(t *testing.T) {
		s := harness.New(t, harness.Options{})
		storm(t, s, "indexer")
		checkIDs(t, s, embeddedIDs(t, s, "indexer"))
	})
}

// door is a way to a server that can be shut.
type door struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	shut  bool
	conns map[net.Conn]bool
}

func newDoor(t *testing.T, to string) *door {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{listener: listener, to: strings.TrimPrefix(to, "http://"), conns: map[net.Conn]bool{}}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go d.pass(conn)
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		d.set(true)
	})
	return d
}

func (d *door) url() string { return "http://" + d.listener.Addr().String() }

func (d *door) pass(conn net.Conn) {
	behind, err := net.Dial("tcp", d.to)
	if err != nil || !d.keep(conn, behind) {
		_ = conn.Close()
		return
	}
	go func() {
		_, _ = io.Copy(behind, conn)
		_ = behind.Close()
	}()
	_, _ = io.Copy(conn, behind)
	_ = conn.Close()
}

func (d *door) keep(conns ...net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, conn := range conns {
		d.conns[conn] = true
		if d.shut {
			_ = conn.Close()
		}
	}
	return !d.shut
}

// set shuts the door, which breaks what is on the way, or opens it.
func (d *door) set(shut bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut = shut
	for conn := range d.conns {
		_ = conn.Close()
	}
	clear(d.conns)
}

func TestElasticsearchAwayLosesNothing(t *testing.T) {
	c := newCluster(t)
	d := newDoor(t, c.url)
	d.set(true)
	s := harness.New(t, harness.Options{Config: c.config(d.url())})
	s.Start("ingest", "indexer")
	s.WaitForLeader()
	harness.Eventually(t, 20*time.Second, "the indexer is alive and not ready", func() bool {
		alive, _ := s.Get("indexer", "/livez")
		ready, why := s.Get("indexer", "/readyz")
		return alive == http.StatusOK && ready == http.StatusServiceUnavailable && strings.Contains(why, "index")
	})
	d.set(false)
	load := s.Write(15_000, 8, 500, 8)
	harness.Eventually(t, time.Minute, "documents are indexed", func() bool { return s.Metric("indexer", "tributary_indexer_indexed_total") > 500 })
	d.set(true)
	harness.Eventually(t, time.Minute, "the indexer is not ready", func() bool {
		ready, _ := s.Get("indexer", "/readyz")
		return ready == http.StatusServiceUnavailable
	})
	changes := load.Wait()
	s.Exec(`INSERT INTO orders (id, note) SELECT i, repeat('x', 2000) FROM generate_series(1000001, 1040000) i`) // more than is held
	s.WaitForEvents(changes+40_000, 2*time.Minute)
	d.set(false)
	waitForIndex(t, s, 3*time.Minute)
	peak := s.Process("indexer").PeakBytes() >> 20
	t.Logf("the indexer had %d MB resident at the most", peak)
	if peak > 300 {
		t.Errorf("the indexer had %d MB resident, want less than 300", peak)
	}
	harness.Eventually(t, time.Minute, "the indexer is ready", func() bool {
		ready, _ := s.Get("indexer", "/readyz")
		return ready == http.StatusOK
	})
	if held := s.Metric("indexer", "tributary_indexer_held_bytes"); held != 0 {
		t.Errorf("%v bytes are held", held)
	}
	checkIDs(t, s, c.ids())

	// With nobody to write to, a stop ends in time, and what was not written comes again.
	d.set(true)
	s.Exec(`INSERT INTO orders (id) VALUES (2000001)`)
	harness.Eventually(t, time.Minute, "the last event is held", func() bool { return s.Metric("indexer", "tributary_indexer_held_bytes") > 0 })
	began := stall.Begin(t)
	s.Stop("indexer")
	began.Within(12*time.Second, "the stop")
	d.set(false)
	s.Start("indexer")
	harness.Eventually(t, time.Minute, "the last event is indexed", func() bool { return s.Metric("indexer", "tributary_indexer_indexed_total") > 0 })
	waitForIndex(t, s, time.Minute)
	checkIDs(t, s, c.ids())
	s.Stop("indexer")
}

func TestEventsAreFoundOverNATS(t *testing.T) {
	search := func(t *testing.T, s *harness.System, backend string) {
		s.Start("ingest", "indexer")
		s.WaitForLeader()
		s.Exec(`INSERT INTO orders (id, status, note) VALUES (1, 'packed', 'left in the rain'), (2, 'shipped', 'in "quotes"')`)
		if _, err := s.JetStream().Publish(t.Context(), "publish.web.order.placed.7", []byte(`{"total": 50}`)); err != nil {
			t.Fatal(err)
		}
		nc := s.NATS()
		ask := func(text string) []indexer.Hit {
			result, err := indexer.Search(t.Context(), nc, indexer.Query{Text: text, Size: 10})
			if err != nil {
				return nil
			}
			return result.Hits
		}
		harness.Eventually(t, time.Minute, "three events are found", func() bool { return len(ask("")) == 3 })
		stored := map[string]string{}
		for _, e := range append(s.Events("shop"), s.Events("web")...) {
			stored[e.Address.EffectID(e.Event)] = e.Event.ID
		}
		for text, want := range map[string]int{
			"rain": 1, `"the rain"`: 1, "after.status:shipped": 1, "entity:public.orders": 2, "source:web data.total:50": 1,
			"op:insert NOT rain": 1, "key.id:1": 1, "time:>now-1h": 3, "nothing": 0,
		} {
			hits := ask(text)
			if len(hits) != want {
				t.Errorf("%s: %d hits, want %d", text, len(hits), want)
			}
			for _, hit := range hits {
				event, err := events.Parse(hit.Envelope)
				if err != nil || stored[hit.ID] != event.ID {
					t.Errorf("%s: hit %s holds %v, %v", text, hit.ID, event, err)
				}
			}
		}
		info, err := indexer.Describe(t.Context(), nc)
		if err != nil || info.Backend != backend || info.Documents != 3 || info.Lag != 0 {
			t.Errorf("%+v %v", info, err)
		}
		s.Stop("indexer")
	}
	t.Run("Elasticsearch", func(t *testing.T) {
		c := newCluster(t)
		search(t, harness.New(t, harness.Options{Config: c.config(c.url)}), "elasticsearch")
	})
	t.Run("embedded", func(t *testing.T) { search(t, harness.New(t, harness.Options{}), "embedded") })
}
