package indexer

import (
	"context"
	"time"
)

// collect makes bulks: each is full by count or bytes, or its first document has waited for long enough. When items
// ends, so does the last bulk.
func (x *Indexer) collect(ctx context.Context, items <-chan *item, bulks chan<- []*item) {
	var bulk []*item
	bytes := 0
	age := time.NewTimer(0)
	age.Stop()
	defer age.Stop()
	send := func() {
		age.Stop()
		if len(bulk) == 0 {
			return
		}
		select {
		case bulks <- bulk:
		case <-ctx.Done():
		}
		bulk, bytes = nil, 0
	}
	for {
		select {
		case it, more := <-items:
			if !more {
				send()
				return
			}
			if size := len(it.document.Body); bytes+size > x.options.BulkBytes {
				send()
			}
			if len(bulk) == 0 {
				age.Reset(x.options.BulkAge)
			}
			bulk = append(bulk, it)
			bytes += len(it.document.Body)
			if len(bulk) >= x.options.BulkCount {
				send()
			}
		case <-age.C:
			send()
		}
	}
}
