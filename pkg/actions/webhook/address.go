package webhook

import (
	"bytes"
	"context"
	"hash/maphash"
	"io"
	"net/http"
	"sync/atomic"
)

// addresses keeps requests without a header and a body, ready to be copied: most webhooks go to few URLs, and reading one
// costs as much as signing for it. Each URL has one place in which it may lie, so they stay few, whatever is rendered.
type addresses struct {
	seed   maphash.Seed
	places [64]atomic.Pointer[blank]
}

type blank struct {
	method, url string
	request     *http.Request // to be copied, never changed
}

func newAddresses() *addresses { return &addresses{seed: maphash.MakeSeed()} }

// request makes a request as http.NewRequestWithContext does, whose URL is to be read, not changed.
func (a *addresses) request(ctx context.Context, method, url string, body []byte) (*http.Request, error) {
	place := &a.places[maphash.String(a.seed, url)%uint64(len(a.places))]
	known := place.Load()
	if known == nil || known.url != url || known.method != method {
		request, err := http.NewRequest(method, url, nil)
		if err != nil {
			return nil, err
		}
		known = &blank{method, url, request}
		if request.URL.User == nil { // a credential is not kept
			place.Store(known)
		}
	}
	request := known.request.WithContext(ctx)
	if len(body) > 0 {
		request.Body, request.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	return request, nil
}
