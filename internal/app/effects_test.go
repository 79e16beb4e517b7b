package app_test

import (
	"testing"

	"github.com/tributary-dev/tributary/internal/app"
	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/events"
)

// The bucket of the cache lies in memory: one server that starts again has lost it, bucket and all.
func TestTheCacheIsMadeAgainWhenItsServerWasStartedAgain(t *testing.T) {
	server := natstest.Start(t)
	worker := run(t, "worker", app.Worker, configFor(server))
	worker.waitUntil(true, "partitions", "holds 16 partitions")
	server.Restart(t)
	js := server.JetStream(t)
	waitFor(t, "the bucket is there again", func() bool {
		_, err := js.KeyValue(t.Context(), events.BucketCache)
		return err == nil
	})
}
