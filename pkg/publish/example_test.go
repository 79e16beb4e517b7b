package publish_test

import (
	"context"
	"fmt"
	"os"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/dev/natsserver"
	"github.com/tributary-dev/tributary/pkg/publish"
	"github.com/tributary-dev/tributary/streams"
)

// An application tells that an order was placed. Asked twice for the same, as after a crash of its own, it is told once.
func ExamplePublisher_Publish() {
	ctx := context.Background()
	js, stop := tributary(ctx)
	defer stop()

	publisher := publish.New(js)
	for range 2 {
		receipt, err := publisher.Publish(ctx, publish.Message{
			Source: "web_shop", Entity: "order", Type: "placed", Key: "42",
			ID:   "order-42-placed",
			Data: []byte(`{"total": 19.90}`),
		})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s is message %d, duplicate: %t\n", receipt.ID, receipt.Sequence, receipt.Duplicate)
	}
	// Output:
	// order-42-placed is message 1, duplicate: false
	// order-42-placed is message 1, duplicate: true
}

// tributary stands for a running Tributary: an application has its own connection and nothing else of this.
func tributary(ctx context.Context) (jetstream.JetStream, func()) {
	dir, err := os.MkdirTemp("", "publish-example")
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
