//go:build bench

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/indexer/elastic"
	"github.com/tributary-dev/tributary/test/elasticsearch"
	"github.com/tributary-dev/tributary/test/harness"
)

// TestEventToElasticsearch indexes what lies in EVENTS, beside a bare loop that sends the same documents in bulks of
// the same size, from as many senders, to the same server. The two take turns.
func TestEventToElasticsearch(t *testing.T) {
	const (
		rows   = 100_000
		rounds = 3
	)
	url := elasticsearch.URL(t)
	s := harness.New(t, harness.Options{Schema: table, Settings: map[string]string{"synchronous_commit": "off"}})
	s.Start("ingest")
	s.WaitForLeader()
	s.Exec(fmt.Sprintf(`INSERT INTO orders SELECT `+row+` FROM generate_series(1, %d) i`, rows))
	s.WaitForEvents(rows, 5*time.Minute)
	s.Stop("ingest")
	documents := read(t, s, rows)
	size := 0
	for _, d := range documents {
		size += len(d.Body)
	}

	bareBulks(t, url, documents[:rows/4]) // what is not warm yet is measured by neither
	var bare, rates []float64
	var peak int
	var used []usage
	var bareCPU time.Duration
	js := s.JetStream()
	for round := range rounds {
		before := serverCPU(t, url)
		bare = append(bare, bareBulks(t, url, documents))
		bareCPU = serverCPU(t, url) - before
		prefix := fmt.Sprintf("bench-%d-%d", time.Now().UnixNano(), round)
		t.Setenv("TRIBUTARY_INDEXER_ELASTICSEARCH", url)
		t.Setenv("TRIBUTARY_INDEXER_INDEX", prefix)
		forget(t, s)
		m := startMeter(s, "nats")
		before = serverCPU(t, url)
		s.Start("indexer")
		rates = append(rates, rateUntil(t, rows, 5*time.Minute, func() int { return rows - unsettled(js, rows) }))
		used = append(m.stop(rows), usage{"indexer", s.CPU("indexer"), rows}, usage{"elasticsearch", serverCPU(t, url) - before, rows})
		peak = max(peak, s.Process("indexer").PeakBytes()>>20)
		s.Stop("indexer")
		remove(t, url, prefix)
	}
	slices.Sort(bare)
	slices.Sort(rates)
	figure{"event to Elasticsearch", rates[rounds/2], bare[rounds/2], "bare _bulk of the same documents", used}.print()
	var all time.Duration
	for _, u := range used {
		all += u.total
	}
	fmt.Printf("%44s medians of %d rounds of %d events; documents of %d B; the indexer had %d MB resident at the most\n"+
		"%44s the bare loop took %.1f µs of the server's CPU for each: %.0f %% by CPU, which other loads do not distort\n",
		"", rounds, rows, size/rows, peak, "", float64(bareCPU.Microseconds())/rows, 100*bareCPU.Seconds()/all.Seconds())
}

// serverCPU is the processor time that Elasticsearch has used so far.
func serverCPU(t *testing.T, url string) time.Duration {
	t.Helper()
	answer, err := http.Get(url + "/_nodes/_local/stats/process?filter_path=nodes.*.process.cpu.total_in_millis")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	var stats struct {
		Nodes map[string]struct {
			Process struct {
				CPU struct {
					Total int64 `json:"total_in_millis"`
				} `json:"cpu"`
			} `json:"process"`
		} `json:"nodes"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&stats); err != nil {
		t.Fatal(err)
	}
	total := time.Duration(0)
	for _, node := range stats.Nodes {
		total += time.Duration(node.Process.CPU.Total) * time.Millisecond
	}
	return total
}

// read makes the documents of all events.
func read(t *testing.T, s *harness.System, n int) []indexer.Document {
	t.Helper()
	var documents []indexer.Document
	for msg := range storedMessages(t, s, n) {
		meta, err := msg.Metadata()
		if err != nil {
			t.Fatal(err)
		}
		d, err := indexer.NewDocument(indexer.Message{Subject: msg.Subject(), Data: msg.Data(), Sequence: meta.Sequence.Stream, Stored: meta.Timestamp})
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, d)
	}
	return documents
}

// bareBulks sends documents as the indexer would, from bodies that are made before, and gives how many a second.
func bareBulks(t *testing.T, url string, documents []indexer.Document) float64 {
	t.Helper()
	const bulk, senders = 2000, 2 // the indexer's defaults
	prefix := fmt.Sprintf("bench-%d", time.Now().UnixNano())
	x, err := elastic.New(elastic.Options{URL: url, Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if err := x.Prepare(t.Context()); err != nil { // for the template
		t.Fatal(err)
	}
	defer remove(t, url, prefix)
	bodies := make(chan []byte, len(documents)/bulk+1)
	for part := range slices.Chunk(documents, bulk) {
		var body bytes.Buffer
		for _, d := range part {
			fmt.Fprintf(&body, "{\"create\":{\"_index\":\"%s-%s\",\"_id\":\"%s\"}}\n%s\n", prefix, d.Month, d.ID, d.Body)
		}
		bodies <- body.Bytes()
	}
	close(bodies)
	var wait sync.WaitGroup
	start := time.Now()
	for range senders {
		wait.Go(func() {
			for body := range bodies {
				if err := send(url, body); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	return float64(len(documents)) / time.Since(start).Seconds()
}

func send(url string, body []byte) error {
	answer, err := http.Post(url+"/_bulk", "application/x-ndjson", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	var bulk struct {
		Errors bool `json:"errors"`
	}
	if err := json.Unmarshal(text, &bulk); err != nil || bulk.Errors || answer.StatusCode != http.StatusOK {
		return fmt.Errorf("a bulk failed: %s %.300s", answer.Status, text)
	}
	return nil
}

// forget lets the next indexer begin with the first event.
func forget(t *testing.T, s *harness.System) {
	t.Helper()
	err := s.JetStream().DeleteConsumer(t.Context(), events.StreamEvents, indexer.ConsumerName)
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		t.Fatal(err)
	}
}

// unsettled is how many events are not acknowledged by the indexer yet.
func unsettled(js jetstream.JetStream, all int) int {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	stream, err := js.Stream(ctx, events.StreamEvents)
	if err != nil {
		return all
	}
	consumer, err := stream.Consumer(ctx, indexer.ConsumerName)
	if err != nil {
		return all
	}
	info := consumer.CachedInfo()
	return int(info.NumPending) + info.NumAckPending
}

// remove deletes the indices and the template of a prefix.
func remove(t *testing.T, url, prefix string) {
	t.Helper()
	x, err := elastic.New(elastic.Options{URL: url, Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	months, err := x.Months(context.Background())
	if err == nil {
		err = x.Drop(context.Background(), months)
	}
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequest(http.MethodDelete, url+"/_index_template/"+prefix, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
}
