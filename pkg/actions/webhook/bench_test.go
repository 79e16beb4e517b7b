package webhook_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/egress"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/actions/webhook"
)

const benchConcurrency = 42

var benchBody = bytes.Repeat([]byte(`{"order": 42}`), 54) // 0.7 kB

// BenchmarkDo measures signed deliveries to a receiver on the same machine, as many at a time as a small worker does.
func BenchmarkDo(b *testing.B) {
	b.Setenv("SECRET", "whsec_"+base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef")))
	transport := egress.NewTransport(egress.Options{AllowPrivate: loopback, Concurrency: benchConcurrency})
	defer transport.CloseIdleConnections()
	action := webhook.New(transport, new(secret.Resolver), webhook.Options{})
	registry := actions.Registry{webhook.Type: action}
	receiver := newBenchReceiver(b)
	inParallel(b, func() error {
		_, err := registry.Do(b.Context(), actions.Effect{Key: "shop-1-0-0-0~o~a", Sequence: "0"}, actions.Request{
			Type: webhook.Type, Method: http.MethodPost, URL: receiver, Body: benchBody, Timeout: 10 * time.Second, Secrets: []string{"env:SECRET"},
		})
		return err
	})
}

// BenchmarkBarePost is the least that a signed POST by net/http costs: what BenchmarkDo is to be held against.
func BenchmarkBarePost(b *testing.B) {
	transport := &http.Transport{MaxIdleConnsPerHost: benchConcurrency}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	receiver := newBenchReceiver(b)
	inParallel(b, func() error {
		timestamp := strconv.FormatInt(time.Now().Unix(), 10)
		mac := hmac.New(sha256.New, []byte("0123456789abcdef0123456789abcdef"))
		mac.Write([]byte("shop-1-0-0-0~o~a." + timestamp + "."))
		mac.Write(benchBody)
		req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, receiver, bytes.NewReader(benchBody))
		if err != nil {
			return err
		}
		req.Header.Set("webhook-id", "shop-1-0-0-0~o~a")
		req.Header.Set("webhook-timestamp", timestamp)
		req.Header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		response, err := client.Do(req)
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, response.Body)
		return response.Body.Close()
	})
}

func newBenchReceiver(b *testing.B) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	b.Cleanup(server.Close)
	return server.URL
}

func inParallel(b *testing.B, send func() error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime(b)
	var senders sync.WaitGroup
	for range benchConcurrency {
		senders.Go(func() {
			for left.Add(-1) >= 0 {
				if err := send(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	senders.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
	b.ReportMetric((cpuTime(b)-before).Seconds()*1e6/float64(b.N), "cpu-µs/op")
}

// cpuTime is what this process has used, the receiver included: beside other work it tells more than the rate.
func cpuTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
