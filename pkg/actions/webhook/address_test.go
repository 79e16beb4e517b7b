package webhook_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/webhook"
)

// What is kept of URLs that were read before must not lead a request astray, nor its body or host.
func TestDoSendsEachRequestWhereItGoes(t *testing.T) {
	url, got := newReceiver(t, status(http.StatusOK))
	action := newAction(t, webhook.Options{})
	const paths = 100 // more than are kept
	for range 2 {
		for i := range paths {
			request := actions.Request{Method: http.MethodPut, URL: fmt.Sprintf("%s/%d?x=%d", url, i, i)}
			if i%2 == 0 {
				request.Method, request.Body = http.MethodPost, fmt.Appendf(nil, "{%d}", i)
			}
			if i%3 == 0 {
				request.Header = []actions.Header{{Name: "Host", Value: fmt.Sprint("virtual-", i)}}
			}
			if _, err := action.Do(t.Context(), effect, request); err != nil {
				t.Fatal(err)
			}
			r := got()[0]
			sent := fmt.Sprintf("%s http://%s%s?%s", r.method, url[len("http://"):], r.path, r.query)
			if want := request.Method + " " + request.URL; sent != want || string(r.body) != string(request.Body) {
				t.Fatalf("received %s with %q, want %s with %q", sent, r.body, want, request.Body)
			}
			if i%3 == 0 != (r.host == fmt.Sprint("virtual-", i)) {
				t.Fatalf("request %d came to host %s", i, r.host)
			}
		}
	}
}
