package cachekv

import (
	"container/list"
	"strings"
	"time"
)

// near is the part of the cache that lies in the process: the records that were used last, within a number of bytes. It
// is guarded by whoever has it.
type near struct {
	most    int64
	bytes   int64
	order   *list.List // of *kept, the one used last in front
	byKey   map[string]*list.Element
	hits    uint64
	evicted uint64
}

type kept struct {
	key    string
	record record
}

// overhead is what an entry takes besides its key and value, roughly.
const overhead = 200

func (k *kept) size() int64 { return int64(len(k.key)+len(k.record.value)) + overhead }

func newNear(most int64) near {
	return near{most: most, order: list.New(), byKey: make(map[string]*list.Element)}
}

// get gives a record that answers a lookup now.
func (n *near) get(key string, now time.Time) (record, bool) {
	at, ok := n.byKey[key]
	if !ok {
		return record{}, false
	}
	r := at.Value.(*kept).record
	if !r.alive(now) {
		n.remove(at)
		return record{}, false
	}
	n.order.MoveToFront(at)
	n.hits++
	return r, true
}

// put takes a record in, unless a later one is there, and lets go of others for it.
func (n *near) put(key string, r record) {
	if at, ok := n.byKey[key]; ok {
		if at.Value.(*kept).record.revision >= r.revision {
			return
		}
		n.remove(at)
	}
	k := &kept{key, r}
	if k.size() > n.most {
		return
	}
	n.byKey[key] = n.order.PushFront(k)
	n.bytes += k.size()
	for n.bytes > n.most {
		n.remove(n.order.Back())
		n.evicted++
	}
}

// drop removes a key whose record is older than revision, and tells whether there was one.
func (n *near) drop(key string, revision uint64) bool {
	at, ok := n.byKey[key]
	if !ok || at.Value.(*kept).record.revision >= revision {
		return false
	}
	n.remove(at)
	return true
}

// dropPrefix removes all keys that begin with prefix, and gives their number.
func (n *near) dropPrefix(prefix string) uint64 {
	var dropped uint64
	for key, at := range n.byKey {
		if strings.HasPrefix(key, prefix) {
			n.remove(at)
			dropped++
		}
	}
	return dropped
}

func (n *near) clear() {
	n.order.Init()
	clear(n.byKey)
	n.bytes = 0
}

func (n *near) remove(at *list.Element) {
	k := n.order.Remove(at).(*kept)
	delete(n.byKey, k.key)
	n.bytes -= k.size()
}
