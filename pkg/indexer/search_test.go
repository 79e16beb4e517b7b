package indexer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/indexer/indextest"
	"github.com/tributary-dev/tributary/pkg/indexer/query"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// shelf answers every question with the documents that it has, in their order.
type shelf struct {
	documents []indexer.Document
	err       error

	mu    sync.Mutex
	asked []indexer.Request
}

func (s *shelf) Search(_ context.Context, r indexer.Request) (indexer.Found, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r)
	found := indexer.Found{Total: len(s.documents)}
	for i := r.From; i < len(s.documents) && i < r.From+r.Size; i++ {
		found.Documents = append(found.Documents, s.documents[i].Body)
	}
	return found, s.err
}

// question gives the one with a number, as it was asked.
func (s *shelf) question(number int) indexer.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[number]
}

func (s *shelf) Describe(context.Context) (indexer.Info, error) {
	return indexer.Info{Backend: "shelf", Documents: len(s.documents), Months: []string{"2026.11"}}, s.err
}

// serve runs a server of questions until the test ends.
func serve(t *testing.T, index *shelf, configure ...func(*server.Options)) (*nats.Conn, prometheus.Gatherer) {
	t.Helper()
	registry := prometheus.NewRegistry()
	nats := natstest.Start(t, configure...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	conn := nats.Conn(t)
	s := indexer.Server{
		Index: index, Lag: func(context.Context) (uint64, error) { return 7, nil },
		Log: slog.New(slog.DiscardHandler), Metrics: indexer.NewMetrics(registry),
	}
	go func() { done <- s.Run(ctx, conn) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	asker := nats.Conn(t)
	for {
		_, err := indexer.Describe(t.Context(), asker)
		if err == nil || !errors.Is(err, indexer.ErrNoIndexer) {
			return asker, registry
		}
	}
}

func TestHitsAreTheEventsByteForByte(t *testing.T) {
	messages := []indexer.Message{
		indextest.Row(1, events.OpInsert, "", `{"id":1,"a":"<\u00e9> & \" \\"}`),
		indextest.Published(t, 1, stored(), "{ \"a\" :\n 1e400 }"),
	}
	nc, _ := serve(t, &shelf{documents: indextest.Documents(t, messages...)})
	result, err := indexer.Search(t.Context(), nc, indexer.Query{Size: 10})
	if err != nil || result.Total != 2 || len(result.Hits) != 2 {
		t.Fatalf("%+v %v", result, err)
	}
	for i, hit := range result.Hits {
		m := messages[i]
		if string(hit.Envelope) != string(m.Data) {
			t.Errorf("got %s, want %s", hit.Envelope, m.Data)
		}
		if hit.Subject != m.Subject || hit.Sequence != m.Sequence || !hit.Stored.Equal(m.Stored) || hit.ID == "" {
			t.Errorf("the hit is %+v of %+v", hit, m)
		}
	}
}

func TestHitsThatDoNotFitInOneAnswerAreAskedForAgain(t *testing.T) {
	var messages []indexer.Message
	for n := range 20 {
		messages = append(messages, indextest.Row(n+1, events.OpInsert, "", `{"id":1,"a":"`+strings.Repeat("x", 10_000)+`"}`))
	}
	index := &shelf{documents: indextest.Documents(t, messages...)}
	nc, _ := serve(t, index, func(o *server.Options) { o.MaxPayload = 64 << 10 })
	result, err := indexer.Search(t.Context(), nc, indexer.Query{Size: 15, From: 2})
	if err != nil {
		t.Fatal(err)
	}
	var got []uint64
	for _, hit := range result.Hits {
		got = append(got, hit.Sequence)
	}
	if want := []uint64{3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17}; !slices.Equal(got, want) || result.Total != 20 || result.Cut {
		t.Errorf("got %v of %d", got, result.Total)
	}
	if len(index.asked) < 3 {
		t.Errorf("it was asked %d times", len(index.asked))
	}
}

func TestQuestionsAreReadAsTheyAreMeant(t *testing.T) {
	index := &shelf{}
	nc, _ := serve(t, index)
	if _, err := indexer.Search(t.Context(), nc, indexer.Query{Text: "op:update", Size: 5, From: 10, Sort: indexer.Oldest}); err != nil {
		t.Fatal(err)
	}
	want := indexer.Request{Query: query.Term{Field: query.Field{Name: "op"}, Text: "update"}, Size: 5, From: 10, Sort: indexer.Oldest}
	if got := index.question(0); got != want {
		t.Errorf("asked %+v, want %+v", got, want)
	}
	if _, err := indexer.Search(t.Context(), nc, indexer.Query{}); err != nil || index.question(1).Sort != indexer.Newest {
		t.Errorf("%v, the order is %s", err, index.question(1).Sort)
	}
}

func TestWrongQuestionsSayWhatIsWrong(t *testing.T) {
	index := &shelf{}
	nc, gather := serve(t, index)
	for name, c := range map[string]struct {
		query indexer.Query
		err   error
		kind  error
		words string
	}{
		"an unknown field":       {indexer.Query{Text: "foo:bar"}, nil, indexer.ErrWrongQuery, `at character 1: there is no field "foo"`},
		"too many hits":          {indexer.Query{Size: 10_001}, nil, indexer.ErrWrongQuery, "from 0 to 10000 together"},
		"hits too far":           {indexer.Query{Size: 1, From: 10_000}, nil, indexer.ErrWrongQuery, "from 0 to 10000 together"},
		"hits before the first":  {indexer.Query{From: -1}, nil, indexer.ErrWrongQuery, "from 0 to 10000 together"},
		"an unknown order":       {indexer.Query{Sort: "random"}, nil, indexer.ErrWrongQuery, `sort must be newest, oldest or best, got "random"`},
		"what the index refuses": {indexer.Query{}, retry.Permanent(errors.New("too many clauses")), indexer.ErrWrongQuery, "too many clauses"},
		"an index that is away":  {indexer.Query{}, errAway, indexer.ErrUnavailable, errAway.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			index.mu.Lock()
			index.err = c.err
			index.mu.Unlock()
			if _, err := indexer.Search(t.Context(), nc, c.query); !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("got %v", err)
			}
		})
	}
	answer, err := nc.Request(indexer.SubjectSearch, []byte("no JSON"), nats.DefaultTimeout)
	if err != nil || answer.Header.Get("Nats-Service-Error-Code") != "400" {
		t.Errorf("%v, %v", err, answer)
	}
	for outcome, want := range map[string]int{"refused": 7, "failed": 1} {
		if got := searches(t, gather, outcome); got != want {
			t.Errorf("%d searches were counted as %s, want %d", got, outcome, want)
		}
	}
}

func searches(t *testing.T, gather prometheus.Gatherer, outcome string) int {
	t.Helper()
	families, err := gather.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "tributary_indexer_searches_total" && m.GetLabel()[0].GetValue() == outcome {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return -1
}

func TestTheIndexIsDescribed(t *testing.T) {
	nc, _ := serve(t, &shelf{documents: make([]indexer.Document, 3)})
	info, err := indexer.Describe(t.Context(), nc)
	if err != nil || info.Backend != "shelf" || info.Documents != 3 || info.Lag != 7 || !slices.Equal(info.Months, []string{"2026.11"}) {
		t.Errorf("%+v %v", info, err)
	}
}

func TestWithoutAnIndexerThatIsSaid(t *testing.T) {
	nc := natstest.Start(t).Conn(t)
	if _, err := indexer.Search(t.Context(), nc, indexer.Query{}); !errors.Is(err, indexer.ErrNoIndexer) {
		t.Errorf("got %v", err)
	}
}

func TestADocumentWithoutItsEventIsAnError(t *testing.T) {
	body, err := json.Marshal(map[string]string{"effect_id": "x"})
	if err != nil {
		t.Fatal(err)
	}
	nc, _ := serve(t, &shelf{documents: []indexer.Document{{Body: body}}})
	if _, err := indexer.Search(t.Context(), nc, indexer.Query{Size: 1}); !errors.Is(err, indexer.ErrUnavailable) || !strings.Contains(fmt.Sprint(err), "x has no envelope") {
		t.Errorf("got %v", err)
	}
}
