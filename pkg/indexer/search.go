package indexer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/indexer/query"
)

// Query is a question to the index, also as JSON in a request.
type Query struct {
	Text string `json:"query"` // in the language of package query; empty asks for all
	Size int    `json:"size"`  // hits to give, at most MaxHits; 0 only counts
	From int    `json:"from"`  // hits to leave out before; at most MaxHits with Size
	Sort Sort   `json:"sort"`  // Newest if empty
}

// Sort is the order of hits.
type Sort string

// The orders. Events of the same time are in the order of their sequence.
const (
	Newest Sort = "newest"
	Oldest Sort = "oldest"
	Best   Sort = "best" // those that match best first
)

// MaxHits is how far hits can be paged through; a range of time goes further.
const MaxHits = 10_000

// Result is the answer. It is as of a moment ago: an index shows what it took within a second or two.
type Result struct {
	Total int   `json:"total"` // all that match
	Hits  []Hit `json:"hits"`
	Cut   bool  `json:"cut,omitempty"` // there was no room for all hits that were asked for; Search asks for the rest
}

// Hit is an event that matches.
type Hit struct {
	ID       string          `json:"id"` // the event's effect id
	Subject  string          `json:"subject"`
	Sequence uint64          `json:"sequence"` // in EVENTS, when it was indexed
	Stored   time.Time       `json:"stored"`
	Envelope json.RawMessage `json:"envelope"` // the event, byte for byte
}

// Request is a question as an index gets it.
type Request struct {
	Query query.Node
	Size  int
	From  int
	Sort  Sort
}

// Found is what an index answers.
type Found struct {
	Total     int
	Documents []json.RawMessage // as NewDocument made them
}

// Info describes the index.
type Info struct {
	Backend   string   `json:"backend"` // elasticsearch, opensearch or embedded
	Version   string   `json:"version,omitempty"`
	Documents int      `json:"documents"`
	Months    []string `json:"months"` // YYYY.MM, ascending
	Lag       uint64   `json:"lag"`    // events that are not indexed yet

	Identity string `json:"identity,omitempty"` // tells the index from every other one
}

// searcher is the index as questions see it. It errors with retry.Permanent where the question can't be answered.
type searcher interface {
	Search(ctx context.Context, r Request) (Found, error)
	Describe(ctx context.Context) (Info, error)
}

// request checks a query and reads its text. The error is for the one who asks.
func (q Query) request(now time.Time) (Request, error) {
	if q.Sort == "" {
		q.Sort = Newest
	}
	switch {
	case q.Size < 0 || q.From < 0 || q.Size > MaxHits || q.From > MaxHits-q.Size:
		return Request{}, fmt.Errorf("size and from must be from 0 to %d together, got %d and %d; a range such as time:<2026-11-23T08:45 goes further", MaxHits, q.Size, q.From)
	case q.Sort != Newest && q.Sort != Oldest && q.Sort != Best:
		return Request{}, fmt.Errorf("sort must be %s, %s or %s, got %q", Newest, Oldest, Best, q.Sort)
	}
	node, err := query.Parse(q.Text, now)
	return Request{Query: node, Size: q.Size, From: q.From, Sort: q.Sort}, err
}

// members are what a hit takes of a document.
type members struct {
	EffectID       string    `json:"effect_id"`
	Source         string    `json:"source"`
	Schema         string    `json:"schema"`
	Table          string    `json:"table"`
	Op             events.Op `json:"op"`
	Partition      int       `json:"partition"`
	StreamSequence uint64    `json:"stream_sequence"`
	Stored         time.Time `json:"stored"`
	Envelope       string    `json:"envelope"`
}

// appendResult writes the answer in at most so many bytes; what has no room is cut off. Envelopes are written as they
// are, which encoding/json would not do.
func appendResult(dst []byte, found Found, most int) ([]byte, error) {
	const tail = len(`],"cut":true}`)
	dst = fmt.Appendf(dst, `{"total":%d,"hits":[`, found.Total)
	for i, document := range found.Documents {
		before := len(dst)
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendHit(dst, document); err != nil {
			return nil, err
		}
		if len(dst)+tail > most {
			if i == 0 {
				return nil, errors.New("the hit is larger than what NATS takes as a message")
			}
			return append(dst[:before], `],"cut":true}`...), nil
		}
	}
	return append(dst, "]}"...), nil
}

func appendHit(dst []byte, document json.RawMessage) ([]byte, error) {
	var m members
	if err := json.Unmarshal(document, &m); err != nil {
		return nil, fmt.Errorf("decode a document of the index: %w", err)
	}
	if !json.Valid([]byte(m.Envelope)) {
		return nil, fmt.Errorf("decode a document of the index: %s has no envelope", m.EffectID)
	}
	address := events.Address{Partition: m.Partition, Source: m.Source, Schema: m.Schema, Table: m.Table, Op: m.Op}
	dst = append(dst, `{"id":`...)
	dst = events.AppendString(dst, m.EffectID)
	dst = append(dst, `,"subject":`...)
	dst = events.AppendString(dst, address.Subject())
	dst = append(dst, `,"sequence":`...)
	dst = strconv.AppendUint(dst, m.StreamSequence, 10)
	dst = append(dst, `,"stored":"`...)
	dst = m.Stored.AppendFormat(dst, events.TimeFormat)
	dst = append(dst, `","envelope":`...)
	dst = append(dst, m.Envelope...)
	return append(dst, '}'), nil
}
