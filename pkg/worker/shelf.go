package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/dedupkv"
	"github.com/tributary-dev/tributary/pkg/events"
)

// Keys of KV circuits that are the workers'.
const (
	holderPrefix = "holder." // and the partition
	parkedPrefix = "parked." // and the partition, the observer, the action

	shelfVersion   = 1
	shelfSubject   = "$KV." + events.BucketCircuits + "."
	headerFence    = "Nats-Expected-Last-Subject-Sequence"
	headerFenceOf  = "Nats-Expected-Last-Subject-Sequence-Subject"
	headerKV       = "KV-Operation"
	removedRecord  = "PURGE"
	markerLives    = "60s"
	errorFencedOut = "another worker has opened the ranges of the partition"
)

// errFenced says that another worker holds the partition, and keeps its ranges.
var errFenced = errors.New(errorFencedOut)

// shelf is where ranges lie: KV circuits. Every write expects the partition's holder to be the one that opened it: from
// the moment at which the next holder has written its name, the server refuses what an earlier one has sent or will send.
type shelf struct{ js jetstream.JetStream }

// span is a part of a range, that one generation judges: sequences in EVENTS, both ends included.
type span struct {
	From       uint64 `json:"from"`
	To         uint64 `json:"to,omitempty"` // 0: no end
	Generation string `json:"generation"`
}

func (s span) has(sequence uint64) bool { return sequence >= s.From && (s.To == 0 || sequence <= s.To) }

// floorRecord says up to where the events of a line were settled when the first of its effects was parked.
type floorRecord struct {
	Source      string          `json:"source"`
	Incarnation uint64          `json:"incarnation"`
	At          events.Sequence `json:"at"`
}

// rangeRecord is a range as KV holds it.
type rangeRecord struct {
	V         int           `json:"v"`
	Partition int           `json:"partition"`
	Observer  string        `json:"observer"`
	Action    string        `json:"action"`
	Circuit   string        `json:"circuit"`
	Made      int64         `json:"made"` // when EVENTS was made, in Unix nanoseconds
	Spans     []span        `json:"spans"`
	Floors    []floorRecord `json:"floors"`
	High      uint64        `json:"high"`  // about the last sequence that was parked
	Count     int           `json:"count"` // about how many effects wait
	Since     time.Time     `json:"since"` // when EVENTS took the first of them
	Drained   bool          `json:"drained,omitempty"`
	Worker    string        `json:"worker"`
}

// holderRecord is who keeps the ranges of a partition.
type holderRecord struct {
	V      int    `json:"v"`
	Worker string `json:"worker"`
	Pin    string `json:"pin"`
}

func rangeName(partition int, key rangeKey) string {
	return parkedPrefix + events.PartitionName(partition) + "." + key.observer + "." + key.action
}

// open makes the caller the holder of a partition's ranges, and reads them.
func (s shelf) open(ctx context.Context, partition int, worker, pin string) (fence uint64, records []rangeRecord, err error) {
	value, err := json.Marshal(holderRecord{V: shelfVersion, Worker: worker, Pin: pin})
	if err != nil {
		return 0, nil, fmt.Errorf("encode holder: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, shelfWithin)
	defer cancel()
	ack, err := s.js.PublishMsg(ctx, &nats.Msg{Subject: s.holder(partition), Data: value}, jetstream.WithRetryAttempts(0))
	if err != nil {
		return 0, nil, fmt.Errorf("open the ranges of partition %d: %w", partition, err)
	}
	records, err = readRanges(ctx, s.js, parkedPrefix+events.PartitionName(partition)+".>")
	if err != nil {
		return 0, nil, fmt.Errorf("open the ranges of partition %d: %w", partition, err)
	}
	return ack.Sequence, records, nil
}

const shelfWithin = 2 * time.Second

func (s shelf) holder(partition int) string {
	return shelfSubject + holderPrefix + events.PartitionName(partition)
}

// put stores a range, or removes it. It errs with errFenced where the caller is not the holder any more; after any other
// error it is stored or not, and may be put again.
func (s shelf) put(ctx context.Context, partition int, fence uint64, record rangeRecord, remove bool) error {
	record.V = shelfVersion
	msg := &nats.Msg{
		Subject: shelfSubject + rangeName(partition, rangeKey{record.Observer, record.Action}),
		Header:  nats.Header{headerFence: {strconv.FormatUint(fence, 10)}, headerFenceOf: {s.holder(partition)}},
	}
	if remove {
		msg.Header[headerKV] = []string{removedRecord}
		msg.Header[jetstream.MsgTTLHeader] = []string{markerLives}
	} else {
		value, err := json.Marshal(record)
		if err != nil {
			return fmt.Errorf("encode range: %w", err)
		}
		msg.Data = value
	}
	ctx, cancel := context.WithTimeout(ctx, shelfWithin)
	defer cancel()
	_, err := s.js.PublishMsg(ctx, msg, jetstream.WithRetryAttempts(0))
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return fmt.Errorf("keep range of %s/%s: %w", record.Observer, record.Action, errFenced)
	}
	if err != nil {
		return fmt.Errorf("keep range of %s/%s: %w", record.Observer, record.Action, err)
	}
	return nil
}

func readRanges(ctx context.Context, js jetstream.JetStream, pattern string) ([]rangeRecord, error) {
	var records []rangeRecord
	err := natskv.Open(js, events.BucketCircuits).EachOf(ctx, pattern, func(key string, entry natskv.Entry) error {
		var r rangeRecord
		if err := json.Unmarshal(entry.Value, &r); err != nil || r.V != shelfVersion {
			return fmt.Errorf("range %s is not understood (version %d): %w", key, r.V, err)
		}
		records = append(records, r)
		return nil
	})
	return records, err
}

// ParkedRange is effects of one observer's action that wait for a circuit, in one partition.
type ParkedRange struct {
	Partition int       `json:"partition"`
	Observer  string    `json:"observer"`
	Action    string    `json:"action"`
	Circuit   string    `json:"circuit"`
	From      uint64    `json:"from"`   // the sequence in EVENTS of the first event that waits
	Events    int       `json:"events"` // about how many wait
	Since     time.Time `json:"since"`  // when EVENTS took the first
	Worker    string    `json:"worker"` // that keeps it
}

// ParkedRanges lists what waits for circuits.
func ParkedRanges(ctx context.Context, js jetstream.JetStream) ([]ParkedRange, error) {
	records, err := readRanges(ctx, js, parkedPrefix+">")
	if err != nil {
		return nil, fmt.Errorf("list parked ranges: %w", err)
	}
	list := make([]ParkedRange, 0, len(records))
	for _, r := range records {
		p := ParkedRange{
			Partition: r.Partition, Observer: r.Observer, Action: r.Action, Circuit: r.Circuit, Events: r.Count, Since: r.Since, Worker: r.Worker,
		}
		if len(r.Spans) > 0 {
			p.From = r.Spans[0].From
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b ParkedRange) int {
		return strings.Compare(rangeName(a.Partition, rangeKey{a.Observer, a.Action}), rangeName(b.Partition, rangeKey{b.Observer, b.Action}))
	})
	return list, nil
}

// NeededByRanges gives the first message of EVENTS that a parked range still needs, and names the range; 0 where there is
// none.
func NeededByRanges(ctx context.Context, js jetstream.JetStream) (sequence uint64, by string, err error) {
	list, err := ParkedRanges(ctx, js)
	for _, r := range list {
		if by == "" || r.From < sequence {
			sequence, by = r.From, rangeName(r.Partition, rangeKey{r.Observer, r.Action})
		}
	}
	return sequence, by, err
}

// record gives the range as it is to be stored.
func (r *parkedRange) record(partition int, worker string) rangeRecord {
	record := rangeRecord{
		Partition: partition, Observer: r.key.observer, Action: r.key.action, Circuit: r.circuit, Made: r.made,
		Spans: slices.Concat(r.spans, r.late), High: r.high, Count: r.count, Since: r.since, Drained: r.drained, Worker: worker,
	}
	slices.SortFunc(record.Spans, func(a, b span) int { return cmp.Compare(a.From, b.From) })
	for id, at := range r.floors {
		record.Floors = append(record.Floors, floorRecord{id.Source, id.Incarnation, at})
	}
	return record
}

// restore makes a range of its record.
func restore(record rangeRecord) *parkedRange {
	r := &parkedRange{
		key: rangeKey{record.Observer, record.Action}, circuit: record.Circuit, made: record.Made, spans: record.Spans,
		floors: make(map[dedupkv.Line]events.Sequence, len(record.Floors)), high: record.High, count: record.Count,
		since: record.Since, drained: record.Drained, version: 1, needs: 1, durable: 1,
		counted: record.Count,
	}
	if len(record.Spans) > 0 {
		r.begins = record.Spans[0].From
	}
	for _, f := range record.Floors {
		line := dedupkv.Line{Made: record.Made, Source: f.Source, Incarnation: f.Incarnation, Partition: record.Partition}
		r.floors[line] = f.At
	}
	return r
}
