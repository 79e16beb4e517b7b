// Package ask carries what an operator asks of the ingest that leads a source: to read the rows of a table once more, and how
// the source stands with it.
//
// The first is a request and its answer over NATS. Whoever leads answers, once what is asked for is in the source's own log and
// stored in its position, so that it is done whoever leads later. An answer that does not come is no answer: the same
// question, under the same ID, may be asked again, and is done once. It promises nothing about who may ask: that is for
// the permissions of the NATS account on tributary.ingest.>.
package ask

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/tributary-dev/tributary/pkg/pgcdc"
)

// Subject is where the leader of a source is asked.
func Subject(source string) string { return "tributary.ingest." + source + ".snapshot" }

// ErrNobody is the error of asking a source that nobody reads changes of at the moment.
var ErrNobody = errors.New("nobody reads its changes")

const (
	answerWithin = 10 * time.Second // of one try, for both sides
	most         = 8                // questions at a time
)

type reply struct {
	pgcdc.Answer
	Error string `json:"error,omitempty"`
	Unfit bool   `json:"unfit,omitempty"` // asking again would not help
}

// Serve answers until ctx ends.
func Serve(ctx context.Context, nc *nats.Conn, source string, log *slog.Logger, answer func(context.Context, pgcdc.Ask) (pgcdc.Answer, error)) error {
	questions := make(chan *nats.Msg, most)
	sub, err := nc.ChanSubscribe(Subject(source), questions)
	if err != nil {
		return fmt.Errorf("serve %s: %w", Subject(source), err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	var answering sync.WaitGroup
	defer answering.Wait()
	room := make(chan struct{}, most)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case msg := <-questions:
			select {
			case room <- struct{}{}:
			default:
				continue // who asks will ask again
			}
			answering.Go(func() {
				defer func() { <-room }()
				respond(ctx, msg, source, log, answer)
			})
		}
	}
}

func respond(ctx context.Context, msg *nats.Msg, source string, log *slog.Logger, answer func(context.Context, pgcdc.Ask) (pgcdc.Answer, error)) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var question pgcdc.Ask
	var r reply
	if err := json.Unmarshal(msg.Data, &question); err != nil || question.ID == "" || question.Table == "" && !question.Cancel {
		r.Error, r.Unfit = "the question is not JSON with id and table", true
	} else if a, err := answer(ctx, question); err != nil {
		r.Error, r.Unfit = err.Error(), errors.Is(err, pgcdc.ErrUnfit)
	} else {
		r.Answer = a
		if !question.DryRun && !question.Cancel {
			log.Info("rows were asked for", "source", source, "table", a.Table, "id", a.ID, "who", question.Who)
		}
	}
	data, err := json.Marshal(r)
	if err != nil {
		return
	}
	_ = msg.Respond(data) // who asked will ask again
}

// Leader asks whoever leads a source, again and again while nobody answers, until ctx ends. It errs with pgcdc.ErrUnfit
// where asking again would not help, and with ErrNobody where nobody could be asked.
func Leader(ctx context.Context, nc *nats.Conn, source string, question pgcdc.Ask) (pgcdc.Answer, error) {
	data, err := json.Marshal(question)
	if err != nil {
		return pgcdc.Answer{}, fmt.Errorf("encode the question: %w", err)
	}
	const pause = 250 * time.Millisecond
	for {
		answer, err := try(ctx, nc, source, data)
		if err == nil || errors.Is(err, pgcdc.ErrUnfit) {
			return answer, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return pgcdc.Answer{}, err
		case <-timer.C:
		}
	}
}

func try(ctx context.Context, nc *nats.Conn, source string, question []byte) (pgcdc.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin+time.Second)
	defer cancel()
	var r reply
	if err := request(ctx, nc, source, Subject(source), question, &r); err != nil {
		return pgcdc.Answer{}, err
	}
	switch {
	case r.Error == "":
		return r.Answer, nil
	case r.Unfit:
		return pgcdc.Answer{}, pgcdc.Unfit("%s", r.Error)
	default:
		return pgcdc.Answer{}, fmt.Errorf("the leader of %s: %s", source, r.Error)
	}
}

// request asks whoever leads a source something on a subject, once, and reads the answer. It errs with ErrNobody where nobody
// leads it.
func request(ctx context.Context, nc *nats.Conn, source, subject string, question []byte, answer any) error {
	msg, err := nc.RequestWithContext(ctx, subject, question)
	if errors.Is(err, nats.ErrNoResponders) {
		err = ErrNobody
	}
	if err != nil {
		return fmt.Errorf("ask the leader of %s: %w", source, err)
	}
	if err := json.Unmarshal(msg.Data, answer); err != nil {
		return fmt.Errorf("decode the answer of the leader of %s: %w", source, err)
	}
	return nil
}
