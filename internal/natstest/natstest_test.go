package natstest_test

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, natstest.Leaks()...) }

func TestRestartKeepsPortAndStore(t *testing.T) {
	server := natstest.Start(t)
	js := server.JetStream(t)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	before := server.URL()
	server.Restart(t)
	if server.URL() != before {
		t.Errorf("the URL was %s, and is %s", before, server.URL())
	}
	if _, err := server.JetStream(t).Stream(t.Context(), "S"); err != nil {
		t.Error(err)
	}
}

func TestClusterReplicates(t *testing.T) {
	cluster := natstest.Cluster(t, 3)
	js := cluster.JetStream(t)
	stream, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "s", nil); err != nil {
		t.Fatal(err)
	}
	info, err := stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := len(info.Cluster.Replicas); got != 2 {
		t.Errorf("the leader has %d followers, want 2", got)
	}
}
