package harness

import (
	"fmt"
	"slices"
	"time"
)

// ReceiveTimeout is for sources[].receive_timeout where PostgreSQL is to fall silent.
const ReceiveTimeout = 5 * time.Second

// SourceOfFailovers is Options.Source of a run of failovers.
var SourceOfFailovers = "receive_timeout: " + ReceiveTimeout.String()

// Failover is one way in which a leader stops leading.
type Failover struct {
	Name string
	Most time.Duration // from the fault to the next leader's takeover

	fault func(l *Leaders, leader string)
	mend  func(l *Leaders, leader string)
	stops time.Duration // by then the leader has stopped by itself; 0 where that is not watched
}

// Failovers are the ways that a run mixes. Each ingest has to have proxies of its own (System.Through).
func Failovers() []Failover {
	start := func(l *Leaders, leader string) { l.s.Start(leader) }
	mend := func(l *Leaders, leader string) { l.s.ways[leader].Mend() }
	return []Failover{
		{
			Name: "SIGTERM", Most: time.Second,
			fault: func(l *Leaders, leader string) { l.s.Process(leader).Signal(terminate) },
			mend: func(l *Leaders, leader string) {
				if err := l.s.Process(leader).Wait(30 * time.Second); err != nil {
					l.s.t.Errorf("%s ended with %v", leader, err)
				}
				l.s.Start(leader)
			},
		},
		{
			Name: "kill -9", Most: LeaseTTL + time.Second,
			fault: func(l *Leaders, leader string) { l.s.Kill(leader) },
			mend:  start,
		},
		{
			Name: "frozen", Most: LeaseTTL + time.Second,
			fault: func(l *Leaders, leader string) { l.s.Process(leader).Freeze() },
			mend:  func(l *Leaders, leader string) { l.s.Process(leader).Thaw() },
		},
		{
			Name: "cut off from KV alone", Most: LeaseTTL + time.Second, stops: LeaseTTL,
			fault: func(l *Leaders, leader string) { l.s.ways[leader].KVLost() },
			mend:  mend,
		},
		{
			Name: "cut off from NATS", Most: LeaseTTL + time.Second, stops: LeaseTTL,
			fault: func(l *Leaders, leader string) {
				for _, p := range l.s.ways[leader].NATS {
					p.Cut()
				}
			},
			mend: mend,
		},
		{
			Name: "cut off from PostgreSQL", Most: 2 * time.Second,
			fault: func(l *Leaders, leader string) { l.s.ways[leader].Postgres.Cut() },
			mend:  mend,
		},
		{
			Name: "PostgreSQL falls silent", Most: ReceiveTimeout + 3*time.Second,
			fault: func(l *Leaders, leader string) { l.s.ways[leader].Postgres.Still() },
			mend:  mend,
		},
	}
}

// Run makes the leader stop leading, waits for the next one, and mends what it broke. It gives the time from the fault to the
// takeover. stay is for how long the fault stays after it.
func (f Failover) Run(l *Leaders, stay time.Duration) time.Duration {
	l.s.t.Helper()
	l.WaitForStandby()
	before := l.Last()
	began := time.Now()
	f.fault(l, before.Leader)
	next := l.waitForNext(before, 30*time.Second)
	took := next.At.Sub(began)
	l.noteGap(began, next.At)
	if stalled := l.stalled(began); stalled > 0 {
		l.s.t.Logf("the machine stood still for %v", stalled.Round(time.Millisecond))
	}
	if took > f.Most+l.stalled(began) {
		l.s.t.Errorf("%s of %s: the next leader took over after %v, want at most %v", f.Name, before.Leader, took, f.Most)
	}
	time.Sleep(stay)
	if stopped := l.lastClaim(before.Leader); f.stops > 0 && stopped.Sub(began) > f.stops+l.stalled(began) {
		l.s.t.Errorf("%s of %s: it went on for %v, want at most %v", f.Name, before.Leader, stopped.Sub(began), f.stops)
	}
	f.mend(l, before.Leader)
	if f.Name == "frozen" {
		l.noteFrozen(before.Leader, began, time.Now())
	}
	return took
}

// Took is how long takeovers took, by the kind of failover.
type Took map[string][]time.Duration

// String tells the middle and the longest of each.
func (t Took) String() string {
	text := ""
	for _, f := range Failovers() {
		if all := t[f.Name]; len(all) > 0 {
			sorted := slices.Sorted(slices.Values(all))
			text += fmt.Sprintf("\n%-24s %3d times: p50 %v, longest %v", f.Name, len(all),
				sorted[len(sorted)/2].Round(time.Millisecond), sorted[len(sorted)-1].Round(time.Millisecond))
		}
	}
	return text
}
