package lease_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/tributary-dev/tributary/internal/lease"
	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/internal/stall"
)

const key = "leader"

func TestMain(m *testing.M) {
	if url := os.Getenv("LEASE_TEST_HOLDER"); url != "" {
		os.Exit(holder(url))
	}
	goleak.VerifyTestMain(m)
}

func TestHoldGivesWorksError(t *testing.T) {
	b := bucket(t, natstest.Start(t))
	want := errors.New("work's own")
	if err := lease.New(b, key, lease.Options{}).Hold(t.Context(), func(context.Context) error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v, want work's own", err)
	}
}

func TestHoldIsExclusive(t *testing.T) {
	server := natstest.Start(t)
	var mu sync.Mutex // fails to lock where two hold at a time
	held := 0
	var holders sync.WaitGroup
	for range 5 {
		b := bucket(t, server)
		holders.Go(func() {
			for range 5 {
				err := lease.New(b, key, lease.Options{}).Hold(t.Context(), func(context.Context) error {
					if !mu.TryLock() {
						return errors.New("another one holds the lease")
					}
					defer mu.Unlock()
					held++
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	holders.Wait()
	if held != 25 {
		t.Errorf("held %d times, want 25", held)
	}
}

// A NATS server that was killed brought such records back: of a holder that is long gone, removed before, without an end.
func TestRecordThatNoTTLRemovesIsTaken(t *testing.T) {
	b := bucket(t, natstest.Start(t))
	if _, err := b.Create(t.Context(), key, []byte(`{"owner":"long gone","nonce":"1"}`), 0); err != nil {
		t.Fatal(err)
	}
	h := hold(t, b, lease.Options{TTL: time.Second})
	<-h.began
	h.end()
}

func TestReleaseIsSeenAtOnce(t *testing.T) {
	server := natstest.Start(t)
	first := hold(t, bucket(t, server), lease.Options{TTL: time.Hour})
	<-first.began
	second := hold(t, bucket(t, server), lease.Options{TTL: time.Hour})
	// Asking now and then would take minutes with this TTL; the watch has to be up, which only its consumer shows.
	awaitConsumer(t, server)
	released := stall.Begin(t)
	first.end()
	<-second.began
	released.Within(100*time.Millisecond, "taken after the release")
	second.end()
}

func TestRenewalsKeepTheLease(t *testing.T) {
	server := natstest.Start(t)
	b := bucket(t, server)
	first := hold(t, b, lease.Options{TTL: time.Second})
	<-first.began
	second := hold(t, bucket(t, server), lease.Options{TTL: time.Second})
	select {
	case <-second.began:
		t.Fatal("taken from a holder that lives")
	case err := <-first.ended:
		t.Fatalf("ended by itself: %v", err)
	case <-time.After(2500 * time.Millisecond): // more than two TTLs
	}
	first.end()
	<-second.began
	second.end()
}

func TestHolderCutOffEndsBeforeItsTTL(t *testing.T) {
	server := natstest.Start(t)
	const ttl = 2 * time.Second
	h := hold(t, bucket(t, server), lease.Options{TTL: ttl})
	<-h.began
	server.Stop()
	cut := stall.Begin(t)
	if err := <-h.ended; !errors.Is(err, lease.ErrLost) {
		t.Errorf("ended with %v, want ErrLost", err)
	}
	cut.Within(ttl, "ended after the cut")
}

func TestHolderGoesOnOverAShortRestart(t *testing.T) {
	server := natstest.Start(t)
	b := bucket(t, server)
	h := hold(t, b, lease.Options{TTL: 5 * time.Second})
	<-h.began
	before := revision(t, b)
	server.Restart(t)
	for revision(t, b) == before {
		select {
		case err := <-h.ended:
			t.Fatalf("ended: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	h.end()
}

func TestLeaseThatWasTakenAwayIsLost(t *testing.T) {
	b := bucket(t, natstest.Start(t))
	h := hold(t, b, lease.Options{TTL: time.Second})
	<-h.began
	if _, err := b.Put(t.Context(), key, []byte(`{"owner":"a person"}`), 0); err != nil {
		t.Fatal(err)
	}
	if err := <-h.ended; !errors.Is(err, lease.ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	server := natstest.Start(t)
	first := hold(t, bucket(t, server), lease.Options{})
	<-first.began
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := lease.New(bucket(t, server), key, lease.Options{}).Hold(ctx, func(context.Context) error {
		t.Error("worked")
		return nil
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want DeadlineExceeded", err)
	}
	first.end()
}

func TestDeadHolderIsFollowedWithinTTL(t *testing.T) {
	server := natstest.Start(t)
	child, lines := startHolder(t, server)
	expect(t, lines, "began")
	b := bucket(t, server)
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	died := stall.Begin(t)
	h := hold(t, b, lease.Options{TTL: holderTTL})
	<-h.began
	died.Within(holderTTL+time.Second, "taken after the death")
	h.end()
}

func TestFrozenHolderDoesNotGoOn(t *testing.T) {
	server := natstest.Start(t)
	child, lines := startHolder(t, server)
	expect(t, lines, "began")
	if err := child.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	h := hold(t, bucket(t, server), lease.Options{TTL: holderTTL})
	<-h.began
	if err := child.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	expect(t, lines, "lost")
	select {
	case err := <-h.ended:
		t.Errorf("the new holder ended: %v", err)
	default:
	}
	h.end()
}

// running is a Hold whose work goes on until end.
type running struct {
	began chan struct{}
	ended chan error
	end   func()
}

func hold(t *testing.T, b *natskv.Bucket, options lease.Options) running {
	t.Helper()
	r := running{began: make(chan struct{}), ended: make(chan error, 1)}
	done := make(chan struct{})
	r.end = sync.OnceFunc(func() { close(done) })
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		r.ended <- lease.New(b, key, options).Hold(t.Context(), func(ctx context.Context) error {
			close(r.began)
			select {
			case <-done:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	}()
	t.Cleanup(func() {
		r.end()
		<-returned
	})
	return r
}

func bucket(t *testing.T, server *natstest.Server) *natskv.Bucket {
	t.Helper()
	js := server.JetStream(t)
	_, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "KV_leases", Subjects: []string{"$KV.leases.>"}, MaxMsgsPerSubject: 1,
		Discard: jetstream.DiscardNew, AllowMsgTTL: true, AllowRollup: true, DenyDelete: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return natskv.Open(js, "leases")
}

func revision(t *testing.T, b *natskv.Bucket) uint64 {
	t.Helper()
	entry, err := b.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return entry.Revision
}

func awaitConsumer(t *testing.T, server *natstest.Server) {
	t.Helper()
	js := server.JetStream(t)
	for ; ; time.Sleep(5 * time.Millisecond) {
		stream, err := js.Stream(t.Context(), "KV_leases")
		if err != nil {
			t.Fatal(err)
		}
		if stream.CachedInfo().State.Consumers > 0 {
			return
		}
	}
}

const holderTTL = 2 * time.Second

// holder is the process that tests kill and freeze.
func holder(url string) int {
	conn, err := nats.Connect(url)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	err = lease.New(natskv.Open(js, "leases"), key, lease.Options{TTL: holderTTL}).
		Hold(context.Background(), func(ctx context.Context) error {
			fmt.Println("began")
			<-ctx.Done()
			return ctx.Err()
		})
	if errors.Is(err, lease.ErrLost) {
		fmt.Println("lost")
		return 0
	}
	fmt.Println("ended:", err)
	return 1
}

func startHolder(t *testing.T, server *natstest.Server) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	bucket(t, server)
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), "LEASE_TEST_HOLDER="+server.URL())
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	})
	return child, bufio.NewScanner(out)
}

func expect(t *testing.T, lines *bufio.Scanner, want string) {
	t.Helper()
	if !lines.Scan() || lines.Text() != want {
		t.Fatalf("the holder says %q, want %q", lines.Text(), want)
	}
}
