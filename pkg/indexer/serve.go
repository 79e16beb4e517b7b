package indexer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
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
	Writer  writer                                    // of the same index, for IndexAgain; nil where nothing is written
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
	places := make(chan struct{}, answersAtOnce)
	// A question takes a while: each gets a goroutine, as long as there are not too many.
	// Answers go out by themselves: a request of micro may not be used when its handler has returned.
	at := func(answer func(context.Context, []byte) ([]byte, error)) micro.HandlerFunc {
		return func(r micro.Request) {
			question, reply := r.Data(), r.Reply()
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return
			}
			go func() {
				defer func() { <-places }()
				ctx, cancel := context.WithTimeout(ctx, answerWithin)
				defer cancel()
				body, err := answer(ctx, question)
				s.answer(ctx, reply, body, err)
			}()
		}
	}
	err = errors.Join(
		service.AddEndpoint("search", at(s.search), micro.WithEndpointSubject(SubjectSearch)),
		service.AddEndpoint("index", at(s.describe), micro.WithEndpointSubject(SubjectInfo)),
		service.AddEndpoint("again", at(s.again), micro.WithEndpointSubject(SubjectAgain)),
	)
	if err != nil {
		err = fmt.Errorf("serve %s: %w", SubjectSearch, err)
	} else {
		<-ctx.Done()
	}
	if stopErr := service.Stop(); stopErr != nil && nc.IsConnected() {
		err = errors.Join(err, fmt.Errorf("stop serving %s: %w", SubjectSearch, stopErr))
	}
	for range answersAtOnce { // until nobody has a place
		places <- struct{}{}
	}
	return err
}

// wrongError marks what is wrong about a question.
type wrongError struct{ error }

// answer sends what was found, or what went wrong.
func (s serving) answer(ctx context.Context, reply string, body []byte, err error) {
	msg := &nats.Msg{Subject: reply, Data: body}
	outcome := searchDone
	var wrong wrongError
	var refused refusedError
	switch {
	case err == nil:
	case errors.As(err, &wrong):
		outcome = searchRefused
		msg.Header = failure(codeWrong, err)
	case errors.As(err, &refused):
		outcome = searchRefused
		msg.Header = failure(codeRefused, err)
	default:
		outcome = searchFailed
		msg.Header = failure(codeUnavailable, err)
		if ctx.Err() == nil {
			s.Log.Warn("a question was not answered", "err", err)
		}
	}
	s.Metrics.searches.WithLabelValues(outcome).Inc()
	if err := s.nc.PublishMsg(msg); err != nil {
		s.Log.Debug("an answer was not sent", "err", err)
	}
}

// failure are the headers by which services say that they failed.
func failure(code string, err error) nats.Header {
	return nats.Header{micro.ErrorCodeHeader: {code}, micro.ErrorHeader: {cut(err.Error(), mostError)}}
}

func (s serving) search(ctx context.Context, question []byte) ([]byte, error) {
	began := time.Now()
	var q Query
	if err := json.Unmarshal(question, &q); err != nil {
		return nil, wrongError{fmt.Errorf("the request is not a query in JSON: %w", err)}
	}
	request, err := q.request(began)
	if err != nil {
		return nil, wrongError{err}
	}
	found, err := s.Index.Search(ctx, request)
	s.Metrics.searchSeconds.Observe(time.Since(began).Seconds())
	if retry.IsPermanent(err) {
		return nil, wrongError{err}
	}
	if err != nil {
		return nil, err
	}
	return appendResult(nil, found, int(s.nc.MaxPayload())-headerRoom)
}

func (s serving) describe(ctx context.Context, _ []byte) ([]byte, error) {
	info, err := s.Index.Describe(ctx)
	if err == nil && s.Lag != nil {
		info.Lag, err = s.Lag(ctx)
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(info)
}
