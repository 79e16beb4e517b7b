package elastic_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/indexer/elastic"
	"github.com/tributary-dev/tributary/pkg/indexer/indextest"
	"github.com/tributary-dev/tributary/test/elasticsearch"
)

var prefixes atomic.Int64

// open gives an index of its own on the server.
func open(t *testing.T, options elastic.Options) *elastic.Index {
	t.Helper()
	options.Prefix = fmt.Sprintf("test-%d-%d", time.Now().UnixNano(), prefixes.Add(1))
	x, err := elastic.New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	if err := x.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, month := range monthsOf(t, x) {
			call(t, http.MethodDelete, options.URL+"/"+options.Prefix+"-"+month, "")
		}
		call(t, http.MethodDelete, options.URL+"/_index_template/"+options.Prefix, "")
	})
	return x
}

func monthsOf(t *testing.T, x *elastic.Index) []string {
	t.Helper()
	months, err := x.Months(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return months
}

// call sends a request to the server and gives the answer's body.
func call(t *testing.T, method, url, body string) string {
	t.Helper()
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Close = true
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode >= 500 {
		t.Fatalf("%s %s: %s %s %v", method, url, answer.Status, text, err)
	}
	return string(text)
}

func refresh(t *testing.T, url string) func() {
	return func() {
		t.Helper()
		call(t, http.MethodPost, url+"/_refresh", "")
	}
}

func TestIndex(t *testing.T) {
	url := elasticsearch.URL(t)
	indextest.Run(t, func(t *testing.T) indextest.Opened {
		return indextest.Opened{Index: open(t, elastic.Options{URL: url}), Refresh: refresh(t, url)}
	})
}

// newCounter gives a registry, and how many documents its indexer wrote again.
func newCounter() (*prometheus.Registry, func(*testing.T) float64) {
	registry := prometheus.NewRegistry()
	return registry, func(t *testing.T) float64 {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "tributary_indexer_retried_total" {
				return f.GetMetric()[0].GetCounter().GetValue()
			}
		}
		return -1
	}
}

func TestAnIndexThatIsRemovedIsNotTheOneThatComesInItsPlace(t *testing.T) {
	url := elasticsearch.URL(t)
	x := open(t, elastic.Options{URL: url})
	write := func() (month, id string) {
		t.Helper()
		document, err := indexer.NewDocument(indextest.Row(1, events.OpInsert, "", `{"id":1}`))
		if err != nil {
			t.Fatal(err)
		}
		if outcomes, err := x.Write(t.Context(), []indexer.Document{document}); err != nil || outcomes[0].State != indexer.Created {
			t.Fatal(outcomes, err)
		}
		parts := partsOf(t, x)
		if len(parts) != 1 {
			t.Fatalf("the index has the months %v", parts)
		}
		for month, id = range parts {
		}
		return month, id
	}
	month, first := write()
	if err := x.Drop(t.Context(), []string{month}); err != nil {
		t.Fatal(err)
	}
	if parts := partsOf(t, x); len(parts) > 0 {
		t.Errorf("removed months are told: %v", parts)
	}
	if _, second := write(); first == "" || second == "" || second == first {
		t.Errorf("the first is %q, the second %q", first, second)
	}
}

func partsOf(t *testing.T, x *elastic.Index) map[string]string {
	t.Helper()
	parts, err := x.Parts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return parts
}
