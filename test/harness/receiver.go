package harness

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Receiver takes webhooks, fails as many as it is told to, and remembers all of them.
type Receiver struct {
	URL string

	t          testing.TB
	mu         sync.Mutex
	deliveries []Delivery
	done       map[string]int // idempotency key → deliveries that were answered with 2xx
	bodies     map[string][32]byte
	otherBytes []string // keys that came with other bytes
	failures   float64
	random     *rand.Rand
	status     func(*http.Request) int
	delay      time.Duration
}

// Delivery is one request that came.
type Delivery struct {
	Path     string
	Key      string // Idempotency-Key
	Sequence string // Tributary-Sequence
	Entity   string // the event's partition key, where the body is an event
	Status   int    // what it was answered
	At       time.Time
}

// NewReceiver starts one more receiver, for as long as the test lasts.
func NewReceiver(t testing.TB) *Receiver { return newReceiver(t) }

func newReceiver(t testing.TB) *Receiver {
	r := &Receiver{t: t, done: map[string]int{}, bodies: map[string][32]byte{}, random: rand.New(rand.NewPCG(1, 2))}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.URL = server.URL
	return r
}

// Fail answers this share of the calls with 503.
func (r *Receiver) Fail(share float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = share
}

// Answer decides every status by a function; 0 leaves it to Fail.
func (r *Receiver) Answer(status func(*http.Request) int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

// Delay answers every call this much later.
func (r *Receiver) Delay(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.delay = d
}

func (r *Receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return // the sender is gone: as if it never came
	}
	if request.Method == http.MethodGet { // a lookup: it has no key, and is no delivery
		r.answer(w, request)
		return
	}
	status, delay := r.note(request, body)
	if delay > 0 {
		select {
		case <-request.Context().Done():
			return
		case <-time.After(delay):
		}
	}
	w.WriteHeader(status)
}

// answer answers a lookup: with nothing below /gone, else with a JSON object, unless it is to fail.
func (r *Receiver) answer(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	fails := r.random.Float64() < r.failures
	r.mu.Unlock()
	switch {
	case strings.HasPrefix(request.URL.Path, "/gone"):
		w.WriteHeader(http.StatusNotFound)
	case fails:
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		_, _ = fmt.Fprintf(w, `{"path":%q}`, request.URL.Path) // who asks and has gone needs no answer
	}
}

func (r *Receiver) note(request *http.Request, body []byte) (status int, delay time.Duration) {
	var envelope struct {
		PartitionKey string `json:"partitionkey"`
	}
	_ = json.Unmarshal(body, &envelope)
	key := request.Header.Get("Idempotency-Key")
	sum := sha256.Sum256(body)

	r.mu.Lock()
	defer r.mu.Unlock()
	status = http.StatusOK
	if r.status != nil {
		status = r.status(request)
	}
	if status == 0 || status == http.StatusOK && r.random.Float64() < r.failures {
		status = http.StatusServiceUnavailable
	}
	if before, seen := r.bodies[key]; seen && before != sum {
		r.otherBytes = append(r.otherBytes, key)
	}
	r.bodies[key] = sum
	if status < 300 {
		r.done[key]++
	}
	r.deliveries = append(r.deliveries, Delivery{
		Path: request.URL.Path, Key: key, Sequence: request.Header.Get("Tributary-Sequence"),
		Entity: envelope.PartitionKey, Status: status, At: time.Now(),
	})
	return status, r.delay
}

// Deliveries gives all that came so far, in order.
func (r *Receiver) Deliveries() []Delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Delivery(nil), r.deliveries...)
}

// Done is how many effects succeeded at least once.
func (r *Receiver) Done() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.done)
}

// Succeeded tells whether the effect with this key was answered with 2xx.
func (r *Receiver) Succeeded(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done[key] > 0
}

// Repeated is the effects that succeeded more than once, and how often more.
func (r *Receiver) Repeated() (effects, more int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.done {
		if n > 1 {
			effects++
			more += n - 1
		}
	}
	return effects, more
}

// WaitFor waits until n effects have succeeded.
func (r *Receiver) WaitFor(n int, most time.Duration) {
	r.t.Helper()
	Eventually(r.t, most, fmt.Sprintf("%d effects are done", n), func() bool { return r.Done() >= n })
}

// CheckBytes fails the test where a key came with other bytes at a later attempt.
func (r *Receiver) CheckBytes() {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.otherBytes) > 0 {
		r.t.Errorf("%d keys came again with other bytes, the first is %s", len(r.otherBytes), r.otherBytes[0])
	}
}

// CheckOrder fails the test where, for one entity, a first attempt came behind the first attempt of a later change.
func (r *Receiver) CheckOrder() {
	r.t.Helper()
	last := map[string]string{}
	seen := map[string]bool{}
	wrong := 0
	for _, d := range r.Deliveries() {
		if seen[d.Key] {
			continue
		}
		seen[d.Key] = true
		lane := d.Path + " " + d.Entity
		if d.Sequence <= last[lane] {
			if wrong == 0 {
				r.t.Errorf("order of %s: %s came behind %s", lane, d.Sequence, last[lane])
			}
			wrong++
			continue
		}
		last[lane] = d.Sequence
	}
	if wrong > 1 {
		r.t.Errorf("%d first attempts came out of order", wrong)
	}
}

// CheckStrict fails the test where an effect of a path succeeded for the first time behind that of a later change, or where
// not exactly so many effects of each of these paths have succeeded.
func (r *Receiver) CheckStrict(each int, paths ...string) {
	r.t.Helper()
	last, count := map[string]string{}, map[string]int{}
	seen := map[string]bool{}
	for _, d := range r.Deliveries() {
		if d.Status >= http.StatusMultipleChoices || seen[d.Key] || !slices.Contains(paths, d.Path) {
			continue
		}
		seen[d.Key] = true
		count[d.Path]++
		if d.Sequence <= last[d.Path] {
			r.t.Errorf("order of %s: %s succeeded behind %s", d.Path, d.Sequence, last[d.Path])
		}
		last[d.Path] = d.Sequence
	}
	for _, path := range paths {
		if count[path] != each {
			r.t.Errorf("%s has %d successes, want %d", path, count[path], each)
		}
	}
}
