package streams_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/streams"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, natstest.Leaks()...) }

// The golden file is what the server has in force: each file's settings, and the defaults of what it leaves open.
func TestApplyMakesAllStreams(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	applied := apply(t, js, streams.Options{})
	if applied.Partitions != 16 || applied.MaxPayload != 1<<20 || applied.InboxMax != 1<<19 {
		t.Errorf("applied %+v, want 16 partitions, a payload of 1 MiB, half of it in INBOX", applied)
	}
	var got bytes.Buffer
	encoder := json.NewEncoder(&got)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(configs(t, js)); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "applied.golden.json")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got.String()); d != "" {
		t.Errorf("what is in force differs from %s (-want +got):\n%s", golden, d)
	}
}

func TestApplyAgainChangesNothing(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	apply(t, js, streams.Options{})
	before := configs(t, js)
	updates, err := js.Conn().SubscribeSync("$JS.EVENT.ADVISORY.STREAM.UPDATED.>")
	if err != nil {
		t.Fatal(err)
	}
	apply(t, js, streams.Options{})
	if err := js.Conn().Flush(); err != nil { // an update's advisory is sent before its answer
		t.Fatal(err)
	}
	if d := cmp.Diff(before, configs(t, js)); d != "" {
		t.Errorf("a second Apply changed (-first +second):\n%s", d)
	}
	if n, _, _ := updates.Pending(); n != 0 {
		t.Errorf("a second Apply sent %d updates", n)
	}
}

func TestApplyReconciles(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	apply(t, js, streams.Options{})
	config := configs(t, js)[events.StreamEvents]
	config.Discard = jetstream.DiscardOld
	config.MaxMsgs = 10
	config.Compression = jetstream.S2Compression // left open by the file, so the operator's
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	apply(t, js, streams.Options{EventsMaxBytes: 1 << 30, EventsMaxAge: time.Hour})
	got := configs(t, js)[events.StreamEvents]
	config.Discard, config.MaxMsgs = jetstream.DiscardNew, -1
	config.MaxBytes, config.MaxAge = 1<<30, time.Hour
	if d := cmp.Diff(config, got); d != "" {
		t.Errorf("EVENTS (-want +got):\n%s", d)
	}
}

// EVENTS of a version that knew atomic batches alone takes fast ones after the next start.
func TestApplyLetsAnOlderStreamTakeFastBatches(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	apply(t, js, streams.Options{})
	stream, err := js.Stream(t.Context(), events.StreamEvents)
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	config.AllowBatchPublish = false
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	apply(t, js, streams.Options{})
	if stream, err = js.Stream(t.Context(), events.StreamEvents); err != nil {
		t.Fatal(err)
	}
	if !stream.CachedInfo().Config.AllowBatchPublish {
		t.Error("EVENTS does not take fast batches")
	}
}

func TestApplyKeepsThePartitions(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	for _, option := range []int{4, 8, 0} {
		if got := apply(t, js, streams.Options{Partitions: option}).Partitions; got != 4 {
			t.Errorf("asked for %d partitions after 4: got %d, want 4", option, got)
		}
	}
}

func TestApplySaysWhatItCannotChange(t *testing.T) {
	cases := map[string]struct {
		made    jetstream.StreamConfig
		options streams.Options
		want    []string // in the error
	}{
		"a stream on the other storage": {
			made: jetstream.StreamConfig{Name: "KV_cache", Subjects: []string{"$KV.cache.>"}},
			want: []string{"KV_cache", `storage is "file" and should be "memory"`, "nats stream rm KV_cache"},
		},
		"a stream that is no work queue": {
			made: jetstream.StreamConfig{Name: "JOBS", Subjects: []string{"jobs.>"}},
			want: []string{"JOBS", `retention is "limits" and should be "workqueue"`, "nats stream rm JOBS"},
		},
		"subjects that another stream has": {
			made: jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"publish.>"}},
			want: []string{"INBOX", "overlap"},
		},
		"replicas without a cluster": {
			options: streams.Options{Replicas: 3},
			want:    []string{"nats.replicas", "cluster"},
		},
		"replicas that make no majority": {
			options: streams.Options{Replicas: 2},
			want:    []string{"nats.replicas must be 1, 3 or 5, got 2"},
		},
		"too many partitions": {
			options: streams.Options{Partitions: 1001},
			want:    []string{"events.partitions must be 1 to 1000, got 1001"},
		},
		"more bytes than there are": {
			options: streams.Options{EventsMaxBytes: 1 << 50},
			want:    []string{"EVENTS", "events.max_bytes"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			js := natstest.Start(t).JetStream(t)
			if c.made.Name != "" {
				if _, err := js.CreateStream(t.Context(), c.made); err != nil {
					t.Fatal(err)
				}
			}
			_, err := streams.Apply(t.Context(), js, c.options)
			if err == nil {
				t.Fatal("applied")
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) { // it is read by people, so its words are what is tested
					t.Errorf("error %q does not say %q", err, part)
				}
			}
		})
	}
}

func TestApplyRefusesEventsOfUnknownPartitions(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: events.StreamEvents, Subjects: []string{"events.>", "positions.>"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "events.000.a.b.c.insert", nil); err != nil {
		t.Fatal(err)
	}
	_, err = streams.Apply(t.Context(), js, streams.Options{Partitions: 4})
	if err == nil || !strings.Contains(err.Error(), "tributary.partitions") {
		t.Errorf("got error %v, want one that names tributary.partitions", err)
	}
}

func TestApplyByManyAtOnce(t *testing.T) {
	srv := natstest.Start(t)
	results := make([]streams.Applied, 5)
	errs := make([]error, len(results))
	var services sync.WaitGroup
	for i := range results {
		js := srv.JetStream(t)
		services.Go(func() { results[i], errs[i] = streams.Apply(t.Context(), js, streams.Options{Partitions: 4 + i}) })
	}
	services.Wait()
	for i, got := range results {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		if got != results[0] {
			t.Errorf("service %d has %+v, service 0 has %+v", i, got, results[0])
		}
	}
}

func TestApplyWaitsForTheServer(t *testing.T) {
	srv := natstest.Start(t)
	srv.Stop()
	conn, err := nats.Connect(srv.URL(), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := streams.Apply(short, js, streams.Options{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a server: got error %v, want DeadlineExceeded", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := streams.Apply(t.Context(), js, streams.Options{})
		done <- err
	}()
	srv.Restart(t)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestApplyOnThreeReplicas(t *testing.T) {
	js := natstest.Cluster(t, 3).JetStream(t)
	apply(t, js, streams.Options{})
	apply(t, js, streams.Options{Replicas: 3}) // also where the streams had one
	for name, config := range configs(t, js) {
		if config.Replicas != 3 {
			t.Errorf("%s has %d replicas, want 3", name, config.Replicas)
		}
	}
}

func TestInboxTakesHalfOfAPayload(t *testing.T) {
	js := natstest.Start(t, func(o *server.Options) { o.MaxPayload = 64 << 10 }).JetStream(t)
	if got := apply(t, js, streams.Options{}).InboxMax; got != 32<<10 {
		t.Errorf("INBOX takes %d bytes, want 32 KiB", got)
	}
	for size, want := range map[int]error{30 << 10: nil, 40 << 10: jetstream.ErrStreamMessageExceedsMaximum} {
		if _, err := js.Publish(t.Context(), "publish.app.order.placed", make([]byte, size)); !errors.Is(err, want) {
			t.Errorf("%d bytes: got error %v, want %v", size, err, want)
		}
	}
}

// What a job needs of its stream: a ticket that is due later comes out of the queue as a ready one.
func TestJobsFireSchedules(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	apply(t, js, streams.Options{})
	consumer, err := js.CreateConsumer(t.Context(), events.StreamJobs,
		jetstream.ConsumerConfig{Durable: "ready", FilterSubject: "jobs.ready.>", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	ticket := nats.NewMsg("jobs.at.some-job")
	ticket.Header.Set("Nats-Schedule", "@at "+time.Now().UTC().Add(300*time.Millisecond).Format(time.RFC3339Nano))
	ticket.Header.Set("Nats-Schedule-Target", "jobs.ready.default")
	ticket.Data = []byte("attempt 2")
	if _, err := js.PublishMsg(t.Context(), ticket); err != nil {
		t.Fatal(err)
	}
	msg, err := consumer.Next(jetstream.FetchMaxWait(10 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if string(msg.Data()) != "attempt 2" || msg.Subject() != "jobs.ready.default" {
		t.Errorf("got %q on %s", msg.Data(), msg.Subject())
	}
}

func TestBucketsAreBuckets(t *testing.T) {
	js := natstest.Start(t).JetStream(t)
	apply(t, js, streams.Options{})
	for _, name := range []string{
		events.BucketDedup, events.BucketJobs, events.BucketCache, events.BucketObservers,
		events.BucketLeases, events.BucketWorkers, events.BucketCircuits,
	} {
		kv, err := js.KeyValue(t.Context(), name)
		if err != nil {
			t.Errorf("bucket %s: %v", name, err)
			continue
		}
		if _, err := kv.Create(t.Context(), "a.key", []byte("value"), jetstream.KeyTTL(time.Minute)); err != nil {
			t.Errorf("bucket %s: %v", name, err)
		}
	}
}

func TestCheckVersion(t *testing.T) {
	for version, fine := range map[string]bool{
		"2.14.0": true, "2.15.2": true, "3.0.0": true, "v2.14.1-RC.1": true,
		"2.13.9": false, "2.9.25": false, "1.99.0": false, "": false, "two": false,
	} {
		if err := streams.CheckVersion(version); (err == nil) != fine {
			t.Errorf("version %q: got error %v", version, err)
		}
	}
}

func apply(t *testing.T, js jetstream.JetStream, options streams.Options) streams.Applied {
	t.Helper()
	applied, err := streams.Apply(t.Context(), js, options)
	if err != nil {
		t.Fatal(err)
	}
	return applied
}

// configs gives the settings in force, without what the server notes for itself.
func configs(t *testing.T, js jetstream.JetStream) map[string]jetstream.StreamConfig {
	t.Helper()
	all := map[string]jetstream.StreamConfig{}
	list := js.ListStreams(t.Context())
	for info := range list.Info() {
		maps.DeleteFunc(info.Config.Metadata, func(key, _ string) bool { return strings.HasPrefix(key, "_nats.") })
		all[info.Config.Name] = info.Config
	}
	if list.Err() != nil {
		t.Fatal(list.Err())
	}
	return all
}
