package elastic_test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

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
		remove(t, options.URL+"/"+options.Prefix+"-*")
		remove(t, options.URL+"/_index_template/"+options.Prefix)
	})
	return x
}

func remove(t *testing.T, url string) {
	t.Helper()
	request, err := http.NewRequest(http.MethodDelete, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
}

func refresh(t *testing.T, url string) func() {
	return func() {
		t.Helper()
		answer, err := http.Post(url+"/_refresh", "application/json", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
	}
}

func TestIndex(t *testing.T) {
	url := elasticsearch.URL(t)
	indextest.Run(t, func(t *testing.T) indextest.Opened {
		return indextest.Opened{Index: open(t, elastic.Options{URL: url}), Refresh: refresh(t, url)}
	})
}
