package dedupkv_test

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/dev/natsserver"
	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/streams"
)

// Two workers hold a partition one after the other. The first dies with an invoice that it has begun, and one that it has
// sent; the second takes the ledger over, sends the former and leaves the latter.
func ExampleLedger() {
	ctx, stop := context.WithCancel(context.Background())
	js, end := bucket(ctx)
	defer end()
	store, err := dedupkv.New(natskv.Open(js, events.BucketDedup), dedupkv.Options{})
	must(err)
	var writing sync.WaitGroup
	defer writing.Wait()
	defer stop()
	hold := func(worker string) *dedupkv.Ledger {
		ledger := store.Ledger(0, nil)
		writing.Go(func() { ledger.Run(ctx) })
		_, err := ledger.Own(ctx, dedupkv.Owner{Worker: worker, Pin: "pin of " + worker}, nil)
		must(err)
		return ledger
	}

	one := hold("one")
	sent, err := one.Claim(ctx, "invoice-1", "rules")
	must(err)
	must(one.Settle(ctx, "invoice-1", sent, dedupkv.Done))
	_, err = one.Claim(ctx, "invoice-2", "rules")
	must(err)

	two := hold("two")
	for _, key := range []string{"invoice-1", "invoice-2", "invoice-3"} {
		claim, err := two.Claim(ctx, key, "rules")
		must(err)
		fmt.Printf("%s: %s, begun %d times\n", key, claim.State, claim.Begun)
	}
	_, err = one.Claim(ctx, "invoice-4", "rules")
	fmt.Println(err)
	// Output:
	// invoice-1: settled, begun 0 times
	// invoice-2: taken_over, begun 2 times
	// invoice-3: fresh, begun 1 times
	// claim effect in ledger.000: claim was taken over
}

// bucket stands for a running Tributary.
func bucket(ctx context.Context) (jetstream.JetStream, func()) {
	dir, err := os.MkdirTemp("", "dedupkv-example")
	must(err)
	server, err := natsserver.Start(natsserver.Options{StoreDir: dir})
	must(err)
	conn, err := nats.Connect(server.URL())
	must(err)
	js, err := jetstream.New(conn)
	must(err)
	_, err = streams.Apply(ctx, js, streams.Options{EventsMaxBytes: 1 << 20})
	must(err)
	return js, func() {
		conn.Close()
		server.Shutdown()
		must(os.RemoveAll(dir))
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
