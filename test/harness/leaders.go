package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
)

// LeaseTTL is that of ingest's leases.
const LeaseTTL = 3 * time.Second

// Takeover is a position of shop with a new epoch: from then on EVENTS takes nothing from the leader before.
type Takeover struct {
	Epoch  uint64
	Leader string // the process, such as ingest-2
	At     time.Time
}

// Leaders is a record of who led shop, from three sides: EVENTS, where each takeover is a message; `tributary status`, which
// is asked all the time; and the processes themselves.
type Leaders struct {
	s     *System
	names []string
	stop  context.CancelFunc
	done  sync.WaitGroup

	mu        sync.Mutex
	takeovers []Takeover // guarded by mu
	status    []seen     // guarded by mu
	claims    []claim    // guarded by mu
	gaps      []span     // when nobody need lead; guarded by mu
	frozen    []exempt   // guarded by mu
	stalls    []span     // of the whole machine; guarded by mu
}

type span struct{ from, to time.Time }

// seen is what one look at the status showed.
type seen struct {
	at      time.Time
	leaders []string
	epoch   uint64
}

// claim is that a process said that it leads.
type claim struct {
	name string
	span // of the asking
}

// exempt is when a process could not say anything that is true.
type exempt struct {
	name string
	span
}

// WatchLeaders records who of the named ingests leads, until the end of the test or Stop.
func (s *System) WatchLeaders(names ...string) *Leaders {
	s.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	l := &Leaders{s: s, names: names, stop: stop}
	js := s.JetStream()
	consumer, err := js.OrderedConsumer(ctx, events.StreamEvents, jetstream.OrderedConsumerConfig{FilterSubjects: []string{events.PositionSubject("shop")}})
	if err != nil {
		s.t.Fatalf("read positions: %v", err)
	}
	reading, err := consumer.Consume(l.position)
	if err != nil {
		s.t.Fatalf("read positions: %v", err)
	}
	looking := l.look(ctx)
	for _, name := range names {
		l.done.Go(func() { l.ask(ctx, name) })
	}
	l.done.Go(func() { l.feelStalls(ctx) })
	s.t.Cleanup(func() {
		stop()
		reading.Stop()
		<-reading.Closed()
		_ = looking.Wait()
		l.done.Wait()
	})
	return l
}

func (l *Leaders) position(msg jetstream.Msg) {
	var p struct {
		Epoch  uint64
		Leader string
	}
	meta, err := msg.Metadata()
	if err != nil || json.Unmarshal(msg.Data(), &p) != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.takeovers); n == 0 || l.takeovers[n-1].Epoch != p.Epoch {
		l.takeovers = append(l.takeovers, Takeover{Epoch: p.Epoch, Leader: l.process(p.Leader), At: meta.Timestamp})
	}
}

// process is who has the process id in an owner's name.
func (l *Leaders) process(owner string) string {
	for _, field := range strings.Split(owner, "-") {
		for _, name := range l.names {
			if p := l.s.processOf(name); p != nil && field == strconv.Itoa(p.cmd.Process.Pid) {
				return name
			}
		}
	}
	return owner
}

// Last is the latest takeover.
func (l *Leaders) Last() Takeover {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.takeovers) == 0 {
		return Takeover{}
	}
	return l.takeovers[len(l.takeovers)-1]
}

// look runs `tributary status`, which looks ten times a second.
func (l *Leaders) look(ctx context.Context) *exec.Cmd {
	l.s.t.Helper()
	command := exec.CommandContext(ctx, Binary(l.s.t, "tributary"), "status", "--watch", "--every", "100ms", "-o", "json", "--config", l.s.config)
	command.Env = append(command.Environ(), "SHOP_URL="+l.s.Postgres.URL("postgres"))
	command.Stdout = lines(l.looked)
	if err := command.Start(); err != nil {
		l.s.t.Fatalf("run tributary status: %v", err)
	}
	return command
}

// lines calls itself with each line that is written.
type lines func(line []byte)

// Write takes whole lines, as the encoder of the status writes them.
func (f lines) Write(data []byte) (int, error) {
	for line := range bytes.Lines(data) {
		f(line)
	}
	return len(data), nil
}

func (l *Leaders) looked(line []byte) {
	var status struct {
		Time    time.Time
		Error   string
		Sources []struct {
			Name, Leader string
			Epoch        uint64
		}
	}
	if err := json.Unmarshal(line, &status); err != nil || status.Error != "" {
		return
	}
	look := seen{at: time.Now()}
	for _, source := range status.Sources {
		if source.Name == "shop" {
			look.epoch = source.Epoch
			if source.Leader != "" {
				look.leaders = append(look.leaders, source.Leader)
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status = append(l.status, look)
}

// ask asks a process whether it leads.
func (l *Leaders) ask(ctx context.Context, name string) {
	for ctx.Err() == nil {
		asked := time.Now()
		if l.s.MetricOf(name, "tributary_ingest_leading", `source="shop"`) == 1 {
			l.mu.Lock()
			l.claims = append(l.claims, claim{name, span{asked, time.Now()}})
			l.mu.Unlock()
		}
		select {
		case <-ctx.Done():
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// feelStalls notes when the machine let nobody run in time: no program can keep its times then.
func (l *Leaders) feelStalls(ctx context.Context) {
	const nap, late = 20 * time.Millisecond, 200 * time.Millisecond
	for ctx.Err() == nil {
		began := time.Now()
		time.Sleep(nap)
		if time.Since(began) < late {
			continue
		}
		l.noteGap(began, time.Now().Add(LeaseTTL+time.Second)) // leases may have been lost by it
		l.mu.Lock()
		l.stalls = append(l.stalls, span{began, time.Now()})
		l.mu.Unlock()
	}
}

// stalled is for how long in all the machine stood still since then.
func (l *Leaders) stalled(since time.Time) (sum time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, stall := range l.stalls {
		if stall.to.After(since) {
			sum += stall.to.Sub(stall.from)
		}
	}
	return sum
}

// lastClaim is when a process last said that it leads.
func (l *Leaders) lastClaim(name string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.claims) - 1; i >= 0; i-- {
		if l.claims[i].name == name {
			return l.claims[i].to
		}
	}
	return time.Time{}
}

// Check fails the test where two led at a time, or nobody did outside of the gaps that failovers may make, or an epoch went
// back. It tells how many looks there were.
func (l *Leaders) Check() (looks int) {
	l.s.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.s.t
	for i := 1; i < len(l.takeovers); i++ {
		if l.takeovers[i].Epoch <= l.takeovers[i-1].Epoch {
			t.Errorf("epoch %d of %s came behind epoch %d", l.takeovers[i].Epoch, l.takeovers[i].Leader, l.takeovers[i-1].Epoch)
		}
	}
	epoch := uint64(0)
	for _, look := range l.status {
		if look.epoch < epoch {
			t.Errorf("status showed epoch %d behind %d", look.epoch, epoch)
		}
		epoch = look.epoch
		if n := len(look.leaders); n != 1 && !l.inGap(look.at) {
			t.Errorf("status showed %d leaders at %s: %v", n, look.at.Format(time.RFC3339Nano), look.leaders)
		}
	}
	l.checkClaims(t)
	if len(l.status) == 0 || len(l.claims) == 0 {
		t.Error("nobody looked")
	}
	return len(l.status)
}

// checkClaims looks for a process that led before and after another one did: it would have led all the while.
func (l *Leaders) checkClaims(t testing.TB) {
	t.Helper()
	last := map[string]claim{}
	for _, c := range l.claims {
		if l.isExempt(c) {
			continue
		}
		before, led := last[c.name]
		const asking = 200 * time.Millisecond
		if led && c.from.Sub(before.to) < asking {
			for name, other := range last {
				if name != c.name && other.from.After(before.to) && other.to.Before(c.from) {
					t.Errorf("%s led at %s, and so did %s from %s to %s", name, other.from.Format(time.RFC3339Nano), c.name,
						before.to.Format(time.RFC3339Nano), c.from.Format(time.RFC3339Nano))
				}
			}
		}
		last[c.name] = c
	}
}

func (l *Leaders) inGap(at time.Time) bool {
	for _, gap := range l.gaps {
		if at.After(gap.from) && at.Before(gap.to) {
			return true
		}
	}
	return false
}

func (l *Leaders) isExempt(c claim) bool {
	for _, e := range l.frozen {
		if e.name == c.name && c.to.After(e.from) && c.from.Before(e.to) {
			return true
		}
	}
	return false
}

func (l *Leaders) noteGap(from, to time.Time) {
	const look = 500 * time.Millisecond // the status is put together from several answers
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gaps = append(l.gaps, span{from, to.Add(look)})
}

func (l *Leaders) noteFrozen(name string, from, to time.Time) {
	const waking = 500 * time.Millisecond // until it has seen the clock
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frozen = append(l.frozen, exempt{name, span{from, to.Add(waking)}})
}

func (s *System) processOf(name string) *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.processes[name]
}

// waitForNext waits until another process than the one that led has taken over.
func (l *Leaders) waitForNext(before Takeover, most time.Duration) Takeover {
	l.s.t.Helper()
	var next Takeover
	deadline := time.Now().Add(most)
	for {
		next = l.Last()
		if next.Epoch > before.Epoch && next.Leader != before.Leader {
			return next
		}
		if time.Now().After(deadline) {
			l.s.t.Fatalf("waited %v in vain for another leader than %s", most, before.Leader)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// WaitForStandby waits until each process answers, so that those that do not lead stand by.
func (l *Leaders) WaitForStandby() {
	l.s.t.Helper()
	Eventually(l.s.t, 30*time.Second, "each ingest answers", func() bool {
		for _, name := range l.names {
			if status, _ := l.s.Get(name, "/livez"); status == 0 {
				return false
			}
		}
		return true
	})
}

// String tells who led when, for logs.
func (t Takeover) String() string {
	return fmt.Sprintf("epoch %d: %s at %s", t.Epoch, t.Leader, t.At.Format("15:04:05.000"))
}
