//go:build unix

package worker_test

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/jobs"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/pkg/worker"
)

// A worker that can be frozen is a process of its own: this test's program, told by the environment what to be.
const (
	childURL        = "WORKER_TEST_URL"
	childPartitions = "WORKER_TEST_PARTITIONS"
)

func runChild() error {
	nc, err := nats.Connect(os.Getenv(childURL))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	rules, err := observers.Parse("observers.yaml", []byte(hook))
	if err != nil {
		return err
	}
	dedup, err := dedupkv.New(natskv.Open(js, events.BucketDedup), dedupkv.Options{})
	if err != nil {
		return err
	}
	partitions, err := strconv.Atoi(os.Getenv(childPartitions))
	if err != nil {
		return err
	}
	w, err := worker.New(js, worker.Parts{
		Rules: worker.Fixed(rules), Dedup: dedup, Jobs: jobs.NewStore(js, jobs.StoreOptions{}),
		DeadLetters: deadletter.New(js), Actions: actions.Registry{"webhook": teller{nc, "child"}},
	}, worker.Options{ID: "child", Partitions: partitions})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // the test holds the other end of it
		_, _ = os.Stdin.Read(make([]byte, 1))
		cancel()
	}()
	return w.Run(ctx)
}

// teller tells of each effect as it begins.
type teller struct {
	nc *nats.Conn
	as string
}

func (a teller) Do(_ context.Context, effect actions.Effect, _ actions.Request) (actions.Outcome, error) {
	if err := a.nc.Publish("begun."+a.as, []byte(effect.Key)); err != nil {
		return actions.Outcome{}, err
	}
	<-time.After(5 * time.Millisecond) // some work
	return actions.Outcome{}, nil
}

// heard is what the tellers told, in order.
type heard struct {
	mu    sync.Mutex
	order []string       // of the first beginnings
	times map[string]int // by subject and effect
}

func (h *heard) hear(msg *nats.Msg) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := string(msg.Data)
	if h.times["begun.child"+key]+h.times["begun.w2"+key] == 0 {
		h.order = append(h.order, key)
	}
	h.times[msg.Subject+key]++
}

func (h *heard) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.order)
}

func TestFrozenWorkerBeginsNothingWhenItWakes(t *testing.T) {
	const partitions, all, lanes = 2, 3000, 30
	r := newRig(t, partitions, hook)
	told := &heard{times: make(map[string]int)}
	if _, err := r.js.Conn().Subscribe("begun.*", told.hear); err != nil {
		t.Fatal(err)
	}

	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childURL+"="+r.server.URL(), childPartitions+"="+strconv.Itoa(partitions))
	child.Stderr = t.Output()
	leash, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	signal := func(s syscall.Signal) {
		if err := child.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		_ = child.Process.Signal(syscall.SIGCONT) // errs where it has ended
		_ = leash.Close()
		if err := child.Wait(); err != nil {
			t.Error(err)
		}
	}()

	r.insert(keys(all, lanes)...)
	eventually(t, "the child is at work", func() bool { return told.count() > all/10 })
	signal(syscall.SIGSTOP)
	seen := told.count()
	r.start("w2", func(p *worker.Parts, _ *worker.Options) {
		p.Actions = actions.Registry{"webhook": teller{r.js.Conn(), "w2"}}
	})
	eventually(t, "the other one is at work", func() bool { return told.count() > seen+all/10 })
	signal(syscall.SIGCONT) // with plenty in its lanes
	r.settled()
	eventually(t, "all has been told of", func() bool { return told.count() == all })

	told.mu.Lock()
	defer told.mu.Unlock()
	both, last, commits := 0, make(map[uint64]uint64), make(map[string]uint64)
	for commit := range uint64(all) {
		key := effectKey(commit+1, "o", "a")
		commits[key] = commit
		switch child, other := told.times["begun.child"+key], told.times["begun.w2"+key]; {
		case child == 1 && other == 1:
			both++
		case child+other != 1:
			t.Errorf("effect %s began %d times at the child and %d times at the other", key, child, other)
		}
	}
	if both > lanes { // what was under way when it froze
		t.Errorf("%d effects began at both, and %d could be under way", both, lanes)
	}
	for _, key := range told.order {
		lane := commits[key] % lanes
		if commits[key] < last[lane] {
			t.Errorf("event %d began after %d of its lane", commits[key], last[lane])
		}
		last[lane] = max(last[lane], commits[key])
	}
}
