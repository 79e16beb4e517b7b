package indexer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/tributary-dev/tributary/pkg/retry"
)

// Where questions are asked: a Query in JSON gets a Result, anything an Info.
const (
	SubjectSearch = "tributary.search"
	SubjectInfo   = "tributary.index"
)

const (
	serviceName    = "tributary-search"
	serviceVersion = "1.0.0" // of requests and answers

	answerWithin  = 10 * time.Second
	answersAtOnce = 4
	headerRoom    = 1024 // of an answer's bytes
)

// The codes of answers that are errors.
const (
	codeWrong       = "400"
	codeUnavailable = "503"
)

// Server answers questions.
type Server struct {
	Index   searcher
	Lag     func(ctx context.Context) (uint64, error) // of the indexers; nil for none
	Log     *slog.Logger
	Metrics *Metrics
}

// Run answers until ctx ends. Several servers share the questions.
func (s Server) Run(ctx context.Context, nc *nats.Conn) error {
	return serving{s, nc}.run(ctx)
}

// serving is a Server on a connection.
type serving struct {
	Server
	nc *nats.Conn
}

func (s serving) run(ctx context.Context) error {
	nc := s.nc
	service, err := micro.AddService(nc, micro.Config{
		Name: serviceName, Version: serviceVersion, Description: "searches the events of Tributary",
		ErrorHandler: func(_ micro.Service, e *micro.NATSError) { s.Log.Warn("a question was not served", "err", e) },
	})
	if err != nil {
		return fmt.Errorf("serve %s: %w", SubjectSearch, err)
	}
	var answers sync.WaitGroup
	places := make(chan struct{}, answersAtOnce)
	// A question takes a while: each gets a goroutine, as long as there are not too many.
	at := func(answer func(context.Context, micro.Request) error) micro.HandlerFunc {
		return func(r micro.Request) {
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return
			}
			answers.Go(func() {
				defer func() { <-places }()
				ctx, cancel := context.WithTimeout(ctx, answerWithin)
				defer cancel()
				s.answered(ctx, answer(ctx, r), r)
			})
		}
	}
	err = errors.Join(
		service.AddEndpoint("search", at(s.search), micro.WithEndpointSubject(SubjectSearch)),
		service.AddEndpoint("index", at(s.describe), micro.WithEndpointSubject(SubjectInfo)),
	)
	if err != nil {
		err = fmt.Errorf("serve %s: %w", SubjectSearch, err)
	} else {
		<-ctx.Done()
	}
	if stopErr := service.Stop(); stopErr != nil && nc.IsConnected() {
		err = errors.Join(err, fmt.Errorf("stop serving %s: %w", SubjectSearch, stopErr))
	}
	answers.Wait()
	return err
}

// wrongError marks what is wrong about a question.
type wrongError struct{ error }

// answered tells the asker what went wrong, if it did.
func (s serving) answered(ctx context.Context, err error, r micro.Request) {
	outcome, code := searchDone, ""
	var wrong wrongError
	switch {
	case err == nil:
	case errors.As(err, &wrong):
		outcome, code = searchRefused, codeWrong
	default:
		outcome, code = searchFailed, codeUnavailable
		if ctx.Err() == nil {
			s.Log.Warn("a question was not answered", "err", err)
		}
	}
	s.Metrics.searches.WithLabelValues(outcome).Inc()
	if err != nil {
		if sendErr := r.Error(code, cut(err.Error(), mostError), nil); sendErr != nil {
			s.Log.Debug("an answer was not sent", "err", sendErr)
		}
	}
}

func (s serving) search(ctx context.Context, r micro.Request) error {
	began := time.Now()
	var q Query
	if err := json.Unmarshal(r.Data(), &q); err != nil {
		return wrongError{fmt.Errorf("the request is not a query in JSON: %w", err)}
	}
	request, err := q.request(began)
	if err != nil {
		return wrongError{err}
	}
	found, err := s.Index.Search(ctx, request)
	s.Metrics.searchSeconds.Observe(time.Since(began).Seconds())
	if retry.IsPermanent(err) {
		return wrongError{err}
	}
	if err != nil {
		return err
	}
	body, err := appendResult(nil, found, int(s.nc.MaxPayload())-headerRoom)
	if err != nil {
		return err
	}
	return r.Respond(body)
}

func (s serving) describe(ctx context.Context, r micro.Request) error {
	info, err := s.Index.Describe(ctx)
	if err != nil {
		return err
	}
	if s.Lag != nil {
		if info.Lag, err = s.Lag(ctx); err != nil {
			return err
		}
	}
	return r.RespondJSON(info)
}
