package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
)

const (
	memberTTL     = 3 * time.Second
	announceEvery = time.Second
	answerWithin  = 200 * time.Millisecond
	streamWorkers = "KV_" + events.BucketWorkers
	subjectPrefix = "$KV." + events.BucketWorkers + "."

	announcementVersion = 1
)

// announcement is what a worker's key holds.
type announcement struct {
	V       int       `json:"v"`
	ID      string    `json:"id"`
	Leaving bool      `json:"leaving,omitempty"` // it takes no partitions any more
	Started time.Time `json:"started"`

	// For people.
	Partitions []int `json:"partitions,omitempty"` // that it holds, or waits for
	InFlight   int   `json:"in_flight,omitempty"`  // effects that are under way
}

// members knows the live workers. Each renews its key in KV workers every second; everybody hears the renewals as they
// are published, and counts a worker out that was not heard of for memberTTL. A wrong view does no harm: who works on
// a partition is decided by its pin.
type members struct {
	js      jetstream.JetStream
	log     *slog.Logger
	clock   func() time.Duration
	status  func() Status
	self    announcement
	changed chan struct{} // one place
	kick    chan struct{} // one place: announce at once

	mu      sync.Mutex
	heard   map[string]time.Duration // of the others: when
	first   time.Duration            // when our own renewal was acknowledged for the first time; 0: it was not
	renewed time.Duration            // and for the last
	leaving bool
}

func newMembers(js jetstream.JetStream, id string, log *slog.Logger, clock func() time.Duration, status func() Status) *members {
	return &members{
		js: js, log: log, clock: clock, status: status, self: announcement{V: announcementVersion, ID: id, Started: time.Now().UTC()},
		changed: make(chan struct{}, 1), kick: make(chan struct{}, 1), heard: make(map[string]time.Duration),
	}
}

// run announces this worker and listens to the others until ctx ends.
func (m *members) run(ctx context.Context) error {
	sub, err := m.js.Conn().Subscribe(subjectPrefix+"*", m.hear)
	if err != nil {
		return fmt.Errorf("listen to workers: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // errs where the connection is closed
	ticker := time.NewTicker(announceEvery)
	defer ticker.Stop()
	failed := false
	for {
		err := m.announce(ctx)
		if err != nil && !failed && ctx.Err() == nil {
			m.log.Warn("worker is not announced", "error", err)
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-m.kick:
		}
	}
}

func (m *members) announce(ctx context.Context) error {
	status := m.status()
	m.mu.Lock()
	said := m.self
	said.Leaving = m.leaving
	m.mu.Unlock()
	said.InFlight = status.InFlight
	for _, p := range status.Partitions {
		said.Partitions = append(said.Partitions, p.Partition)
	}
	value, err := json.Marshal(said)
	if err != nil {
		return fmt.Errorf("encode announcement: %w", err)
	}
	msg := &nats.Msg{Subject: subjectPrefix + said.ID, Data: value, Header: nats.Header{
		jetstream.MsgTTLHeader: {memberTTL.String()},
	}}
	ctx, cancel := context.WithTimeout(ctx, announceEvery)
	defer cancel()
	if _, err := m.js.PublishMsg(ctx, msg, jetstream.WithRetryAttempts(0)); err != nil {
		return fmt.Errorf("announce worker %s: %w", said.ID, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	if now-m.renewed > memberTTL { // we were away, not they
		for id := range m.heard {
			m.heard[id] = now
		}
	}
	m.renewed = now
	if m.first == 0 {
		m.first = now
	}
	return nil
}

// leave tells the others that this worker takes no partitions any more.
func (m *members) leave() {
	m.mu.Lock()
	m.leaving = true
	m.mu.Unlock()
	signal(m.kick)
}

func (m *members) hear(msg *nats.Msg) {
	var said announcement
	id := strings.TrimPrefix(msg.Subject, subjectPrefix)
	if id == m.self.ID || len(msg.Data) == 0 {
		return
	}
	if err := json.Unmarshal(msg.Data, &said); err != nil || said.V != m.self.V {
		m.log.Warn("announcement of a worker is not understood", "worker", id, "error", err)
		return
	}
	m.mu.Lock()
	_, known := m.heard[id]
	switch {
	case said.Leaving:
		delete(m.heard, id)
	default:
		m.heard[id] = m.clock()
	}
	m.mu.Unlock()
	if known == said.Leaving { // it came, or it went
		signal(m.changed)
	}
	if !known && !said.Leaving {
		signal(m.kick) // so that it hears of us before its next renewal
	}
}

// live gives the workers that take partitions, this one included unless it leaves.
func (m *members) live() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock()
	if now-m.renewed < memberTTL/2 { // else it may be us who hear nothing
		maps.DeleteFunc(m.heard, func(_ string, at time.Duration) bool { return now-at > memberTTL })
	}
	live := slices.Collect(maps.Keys(m.heard))
	if !m.leaving {
		live = append(live, m.self.ID)
	}
	return live
}

// known tells whether the others have heard of this worker, and have had the time to answer.
func (m *members) known() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.first > 0 && m.clock()-m.first >= answerWithin
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
