package elasticsearch_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/test/elasticsearch"
)

func TestServerAnswersAndEndsWhenItIsLetGo(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a server")
	}
	s := elasticsearch.Start(t)
	answer, err := http.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	if got := answer.Header.Get("X-Elastic-Product"); got != "Elasticsearch" {
		t.Errorf("the product is %q", got)
	}
	s.Stop()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for range 600 {
		answer, err := http.Get(s.URL)
		if err != nil {
			return
		}
		_ = answer.Body.Close()
		<-ticker.C
	}
	t.Error("the server still answers a minute after it was let go")
}
