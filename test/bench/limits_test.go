//go:build bench

package bench

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/test/harness"
)

// readRaw reads the slot named raw, and throws away what it reads: what PostgreSQL can give.
func readRaw(t *testing.T, s *harness.System, rows int) float64 {
	t.Helper()
	harness.Eventually(t, 10*time.Second, "nobody reads the slot", func() bool {
		var free bool
		err := s.DB.QueryRow(t.Context(), `SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'raw'`).Scan(&free)
		return err == nil && free
	})
	config, err := pgconn.ParseConfig(s.Postgres.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	frontend := conn.Frontend()
	frontend.Send(&pgproto3.Query{String: `START_REPLICATION SLOT raw LOGICAL 0/0 (proto_version '1', publication_names 'tributary_shop')`})
	if err := frontend.Flush(); err != nil {
		t.Fatal(err)
	}
	var start time.Time
	for n := 0; n < rows; {
		msg, err := frontend.Receive()
		if err != nil {
			t.Fatal(err)
		}
		data, ok := msg.(*pgproto3.CopyData)
		if !ok {
			if refused, ok := msg.(*pgproto3.ErrorResponse); ok {
				t.Fatal(refused.Message)
			}
			continue
		}
		const header = 25 // XLogData: its kind, two LSNs, a time
		if data.Data[0] == 'w' && len(data.Data) > header && data.Data[header] == 'I' {
			if n == 0 {
				start = time.Now()
			}
			n++
		}
		if data.Data[0] == 'k' && data.Data[17] == 1 {
			sendStatus(t, frontend)
		}
	}
	return float64(rows-1) / time.Since(start).Seconds()
}

func sendStatus(t *testing.T, frontend *pgproto3.Frontend) {
	status := make([]byte, 34)
	status[0] = 'r'
	binary.BigEndian.PutUint64(status[25:], uint64(time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).Microseconds()))
	frontend.Send(&pgproto3.CopyData{Data: status})
	if err := frontend.Flush(); err != nil {
		t.Fatal(err)
	}
}

// fenced are headers as ingest sends them: what a message is, and that it may be stored only while nobody else leads.
func fenced() nats.Header {
	return nats.Header{
		"Content-Type":                                {events.ContentType},
		"Nats-Expected-Last-Subject-Sequence":         {"0"},
		"Nats-Expected-Last-Subject-Sequence-Subject": {"limit.shop"},
	}
}

// publishAsync stores messages with 4,000 in flight, without order: what NATS takes at the most, where there is no header. It
// gives the server's CPU for each, too.
func publishAsync(t *testing.T, s *harness.System, n, size int, header nats.Header) (rate float64, cpu time.Duration) {
	t.Helper()
	js, err := jetstream.New(s.NATS(), jetstream.WithPublishAsyncMaxPending(4000))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "LIMIT", Subjects: []string{"limit.>"}}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = js.DeleteStream(context.Background(), "LIMIT") }()
	body := bytes.Repeat([]byte("x"), size)
	m, start := startMeter(s, "nats"), time.Now()
	for range n {
		if _, err := js.PublishMsgAsync(&nats.Msg{Subject: "limit.001.shop.public.orders", Header: header, Data: body}); err != nil {
			t.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	return float64(n) / time.Since(start).Seconds(), m.stop(n)[0].total / time.Duration(n)
}

// publishBatches stores atomic batches of 1,000, one in flight: what NATS can take.
func publishBatches(t *testing.T, s *harness.System, n, size int) float64 {
	t.Helper()
	nc, js := s.NATS(), s.JetStream()
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "LIMIT", Subjects: []string{"limit.>"}, AllowAtomicPublish: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = js.DeleteStream(context.Background(), "LIMIT") }()
	body := bytes.Repeat([]byte("x"), size)
	start := time.Now()
	for batch := range n / 1000 {
		header := nats.Header{"Nats-Batch-Id": {strconv.Itoa(batch)}}
		for i := 1; i < 1000; i++ {
			header["Nats-Batch-Sequence"] = []string{strconv.Itoa(i)}
			if err := nc.PublishMsg(&nats.Msg{Subject: "limit.001.shop.public.orders", Header: header, Data: body}); err != nil {
				t.Fatal(err)
			}
		}
		header["Nats-Batch-Sequence"], header["Nats-Batch-Commit"] = []string{"1000"}, []string{"1"}
		answer, err := nc.RequestMsg(&nats.Msg{Subject: "limit.001.shop.public.orders", Header: header, Data: body}, 10*time.Second)
		if err != nil || bytes.Contains(answer.Data, []byte("error")) {
			t.Fatalf("batch %d: %v %s", batch, err, answer.Data)
		}
	}
	return float64(n/1000*1000) / time.Since(start).Seconds()
}

// pullAndAck reads EVENTS by one durable consumer and acknowledges each message.
func pullAndAck(t *testing.T, s *harness.System, stream string, n int) float64 {
	t.Helper()
	js := s.JetStream()
	consumer, err := js.CreateConsumer(t.Context(), stream, jetstream.ConsumerConfig{
		Durable: "limit", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 10_000,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = js.DeleteConsumer(context.Background(), stream, "limit") }()
	start := time.Now()
	for read := 0; read < n; {
		batch, err := consumer.Fetch(500, jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		before := read
		for msg := range batch.Messages() {
			if err := msg.Ack(); err != nil {
				t.Fatal(err)
			}
			read++
		}
		if read == before {
			t.Fatalf("%s ends after %d of %d", stream, read, n)
		}
	}
	return float64(n) / time.Since(start).Seconds()
}

// workQueue publishes and takes messages of a work queue, both at the same time.
func workQueue(t *testing.T, s *harness.System, n int) float64 {
	t.Helper()
	js := s.JetStream()
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "QUEUE", Subjects: []string{"queue.>"}, Retention: jetstream.WorkQueuePolicy})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = js.DeleteStream(context.Background(), "QUEUE") }()
	go func() {
		publisher, err := jetstream.New(s.NATS(), jetstream.WithPublishAsyncMaxPending(1000))
		for i := 0; err == nil && i < n; i++ {
			_, err = publisher.PublishAsync("queue.job", []byte(`{"id":"job","attempt":1}`))
		}
		if err == nil {
			<-publisher.PublishAsyncComplete()
		}
	}()
	return pullAndAck(t, s, "QUEUE", n)
}

// fastReceiver answers every request with 200 and counts them.
func fastReceiver(t *testing.T) (url string, count *atomic.Int64) {
	t.Helper()
	count = new(atomic.Int64)
	server := newServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		count.Add(1)
	}))
	return server, count
}

// signedPosts posts signed bodies from 64 goroutines: what a client can send.
func signedPosts(t *testing.T, url string, n int) float64 {
	t.Helper()
	const senders = 64
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: senders}}
	defer client.CloseIdleConnections()
	body := bytes.Repeat([]byte("x"), 700)
	var wait sync.WaitGroup
	var next atomic.Int64
	start := time.Now()
	for range senders {
		wait.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(n) {
					return
				}
				if err := post(client, url, body, i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	return float64(n) / time.Since(start).Seconds()
}

func post(client *http.Client, url string, body []byte, i int64) error {
	id, at := fmt.Sprint("msg_", i), strconv.FormatInt(time.Now().Unix(), 10)
	mac := hmac.New(sha256.New, []byte("secret"))
	fmt.Fprintf(mac, "%s.%s.%s", id, at, body)
	request, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("webhook-id", id)
	request.Header.Set("webhook-timestamp", at)
	request.Header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, answer.Body)
	_ = answer.Body.Close()
	return err
}
