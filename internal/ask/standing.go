package ask

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tributary-dev/tributary/pkg/ingest"
)

// StandingSubject is where the leader of a source is asked how the source stands with it. The question is empty, the answer
// an ingest.Standing as JSON.
func StandingSubject(source string) string { return "tributary.ingest." + source + ".standing" }

// standsWithin is for a leader that is there, and may be frozen.
const standsWithin = 2 * time.Second

// ServeStanding answers until ctx ends.
func ServeStanding(ctx context.Context, nc *nats.Conn, source string, stand func() ingest.Standing) error {
	questions := make(chan *nats.Msg, most)
	sub, err := nc.ChanSubscribe(StandingSubject(source), questions)
	if err != nil {
		return fmt.Errorf("serve %s: %w", StandingSubject(source), err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case msg := <-questions:
			data, err := json.Marshal(stand())
			if err != nil {
				return fmt.Errorf("encode how %s stands: %w", source, err)
			}
			_ = msg.Respond(data) // who asked will ask again
		}
	}
}

// Standing asks whoever leads a source, once. It errs with ErrNobody where nobody does.
func Standing(ctx context.Context, nc *nats.Conn, source string) (s ingest.Standing, err error) {
	ctx, cancel := context.WithTimeout(ctx, standsWithin)
	defer cancel()
	err = request(ctx, nc, source, StandingSubject(source), nil, &s)
	return s, err
}
