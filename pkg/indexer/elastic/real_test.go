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
