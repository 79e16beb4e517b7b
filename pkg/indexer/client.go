package indexer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// What Search and Describe err with, beside the end of ctx.
var (
	ErrNoIndexer   = errors.New("no indexer answers: is one running?")
	ErrWrongQuery  = errors.New("the query can't be answered")
	ErrUnavailable = errors.New("the index can't be asked now")
)

// Search asks whichever indexer answers. It errors with ErrWrongQuery, ErrUnavailable or ErrNoIndexer, with what was
// said about it.
func Search(ctx context.Context, nc *nats.Conn, q Query) (Result, error) {
	var all Result
	for {
		body, err := json.Marshal(q)
		if err != nil {
			return Result{}, fmt.Errorf("encode the query: %w", err)
		}
		var part Result
		if err := ask(ctx, nc, SubjectSearch, body, &part); err != nil {
			return Result{}, err
		}
		all.Total = part.Total
		all.Hits = append(all.Hits, part.Hits...)
		if !part.Cut || len(part.Hits) == 0 {
			return all, nil
		}
		q.From += len(part.Hits)
		q.Size -= len(part.Hits)
	}
}

// Describe asks what the index is and holds. Its errors are those of Search.
func Describe(ctx context.Context, nc *nats.Conn) (Info, error) {
	var info Info
	err := ask(ctx, nc, SubjectInfo, nil, &info)
	return info, err
}

func ask(ctx context.Context, nc *nats.Conn, subject string, body []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin+time.Second)
	defer cancel()
	answer, err := nc.RequestWithContext(ctx, subject, body)
	if errors.Is(err, nats.ErrNoResponders) {
		return ErrNoIndexer
	}
	if err != nil {
		return fmt.Errorf("ask %s: %w", subject, err)
	}
	if code := answer.Header.Get(micro.ErrorCodeHeader); code != "" {
		kind := ErrUnavailable
		switch code {
		case codeWrong:
			kind = ErrWrongQuery
		case codeRefused:
			kind = ErrRefused
		}
		return fmt.Errorf("%w: %s", kind, strings.TrimSpace(answer.Header.Get(micro.ErrorHeader)))
	}
	if err := json.Unmarshal(answer.Data, into); err != nil {
		return fmt.Errorf("decode the answer of %s: %w", subject, err)
	}
	return nil
}
