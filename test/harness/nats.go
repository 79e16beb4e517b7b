package harness

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// cluster is the ports of three NATS servers that know each other.
type cluster struct {
	client, route []int
}

func newCluster(t testing.TB, first int) *cluster {
	c := &cluster{client: []int{first, FreePort(t), FreePort(t)}}
	for range c.client {
		c.route = append(c.route, FreePort(t))
	}
	return c
}

func (c *cluster) names() []string {
	var names []string
	for i := range c.client {
		names = append(names, fmt.Sprintf("nats-%d", i+1))
	}
	return names
}

// args starts the server of this name.
func (c *cluster) args(name, store string) []string {
	var i int
	if _, err := fmt.Sscanf(name, "nats-%d", &i); err != nil || i < 1 || i > len(c.client) {
		panic("no NATS server " + name)
	}
	var routes []string
	for _, port := range c.route {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	return []string{
		"-a", "127.0.0.1", "-p", fmt.Sprint(c.client[i-1]), "-js", "-sd", store, "--name", name,
		"--cluster_name", "tributary", "--cluster", routes[i-1], "--routes", strings.Join(routes, ","),
		"--no_advertise", // a process behind proxies must not hear of the servers' own ports
	}
}

func (s *System) natsArgs(name string) []string {
	store := filepath.Join(s.Dir, "jetstream", name)
	if s.cluster != nil {
		return s.cluster.args(name, store)
	}
	args := []string{"-a", "127.0.0.1", "-p", fmt.Sprint(s.NATSPort), "-js", "-sd", store}
	if s.profile != 0 {
		args = append(args, "--profile", fmt.Sprint(s.profile))
	}
	return args
}

// ProfileURL is where a program serves profiles: a service, or the only NATS server. Options.Profile asks for them.
func (s *System) ProfileURL(name string) string {
	s.t.Helper()
	if name == "nats" {
		return fmt.Sprintf("http://127.0.0.1:%d/debug/pprof", s.profile)
	}
	return "http://" + s.Address(name) + "/debug/pprof"
}

// natsURL names every server.
func (s *System) natsURL() string { return natsURL(s.natsPorts()) }

func (s *System) natsPorts() []int {
	if s.cluster != nil {
		return s.cluster.client
	}
	return []int{s.NATSPort}
}

func natsURL(ports []int) string {
	var urls []string
	for _, port := range ports {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	return strings.Join(urls, ",")
}

// waitForCluster waits until each server takes part: a stream on all of them is the fact that says so.
func (s *System) waitForCluster() {
	s.t.Helper()
	js := s.shared()
	probe := jetstream.StreamConfig{Name: "PROBE", Subjects: []string{"probe"}, Replicas: len(s.cluster.client)}
	Eventually(s.t, 30*time.Second, "the NATS cluster takes a stream on all servers", func() bool {
		_, err := js.CreateStream(s.t.Context(), probe)
		return err == nil
	})
	if err := js.DeleteStream(s.t.Context(), probe.Name); err != nil {
		s.t.Fatal(err)
	}
}

// LeaderOf is the NATS server that leads a stream, or "" while there is none.
func (s *System) LeaderOf(stream string) string {
	info, err := s.shared().Stream(s.t.Context(), stream)
	if err != nil || info.CachedInfo().Cluster == nil {
		return ""
	}
	return info.CachedInfo().Cluster.Leader
}

// Leading is the ingest, of those named, that leads shop; "" while none does.
func (s *System) Leading(names ...string) string {
	for _, name := range names {
		if s.MetricOf(name, "tributary_ingest_leading", `source="shop"`) == 1 {
			return name
		}
	}
	return ""
}

// NATS connects to the NATS servers of the system.
func (s *System) NATS() *nats.Conn {
	s.t.Helper()
	var nc *nats.Conn
	Eventually(s.t, 10*time.Second, "NATS answers", func() bool {
		var err error
		nc, err = nats.Connect(s.natsURL(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
		return err == nil
	})
	s.t.Cleanup(nc.Close)
	return nc
}

// JetStream is JetStream on a connection of its own.
func (s *System) JetStream() jetstream.JetStream {
	s.t.Helper()
	js, err := jetstream.New(s.NATS())
	if err != nil {
		s.t.Fatal(err)
	}
	return js
}
