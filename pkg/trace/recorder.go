package trace

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Kind says who writes records: it is the last token of their subject.
type Kind string

// The kinds.
const (
	Worker    Kind = "worker"
	JobRunner Kind = "jobs"
)

// Options are what a Recorder may be given.
type Options struct {
	Kind    Kind     // who records
	By      string   // its name, in each record
	Sample  *float64 // traces.sample: the share of events that are recorded, from 0 to 1; what failed always is; nil for 1
	Log     *slog.Logger
	Metrics *Metrics

	every   time.Duration // between two messages of a partition; 200 ms
	pending int           // bytes of records that wait to be sent; 8 MiB
}

const (
	batchBytes  = 64 << 10 // of records, before they are compressed
	mostHashes  = 256      // events in one message of a jobrunner
	sendWithin  = 2 * time.Second
	leastPause  = 100 * time.Millisecond
	mostPause   = 2 * time.Second
	defaultWait = 200 * time.Millisecond
	mostPending = 8 << 20
	mostSpare   = 16 // batches whose memory is kept
)

// Recorder collects records, and sends them. It is safe for concurrent use. A nil Recorder records nothing.
type Recorder struct {
	js      jetstream.JetStream
	options Options
	kept    uint32 // events whose hash is at most this are recorded
	all     bool
	packer  *zstd.Encoder // of Run's goroutine
	silent  bool          // of Run's goroutine: that records are not written has been said

	mu      sync.Mutex
	open    map[int]*batch // by partition
	full    []*batch
	pending int // bytes of records in open, in full, and on their way
	spare   []*batch
	wake    chan struct{} // one place: a batch is full
}

// batch is the records of one message.
type batch struct {
	partition   int
	records     int
	first, last uint64   // the sequences in EVENTS; what a jobrunner writes has none
	hashes      []uint32 // of events, where there is no sequence
	lines       []byte
}

// New gives a Recorder. Its stream must exist when it runs.
func New(js jetstream.JetStream, options Options) (*Recorder, error) {
	options.every = cmp.Or(options.every, defaultWait)
	options.pending = cmp.Or(options.pending, mostPending)
	if options.Log == nil {
		options.Log = slog.Default()
	}
	if options.Metrics == nil {
		options.Metrics = NewMetrics(nil)
	}
	sample := 1.0
	if options.Sample != nil {
		sample = *options.Sample
	}
	if !(sample >= 0 && sample <= 1) { // also what is no number
		return nil, fmt.Errorf("traces.sample must be 0 to 1, got %v", sample)
	}
	packer, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(batchBytes))
	if err != nil {
		return nil, fmt.Errorf("compress records: %w", err)
	}
	return &Recorder{
		js: js, options: options, kept: uint32(sample * math.MaxUint32), all: sample == 1, packer: packer,
		open: make(map[int]*batch), wake: make(chan struct{}, 1),
	}, nil
}

// Note records what became of an event of a partition of EVENTS. It never blocks, and keeps nothing of r.
func (t *Recorder) Note(partition int, r *Record) {
	if t == nil {
		return
	}
	hash := uint32(0)
	if !t.all || t.options.Kind == JobRunner {
		hash = hashOf(r.Event)
	}
	if !t.all && hash > t.kept && !r.failed() {
		t.options.Metrics.records.WithLabelValues(notSampled).Inc()
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pending >= t.options.pending {
		t.options.Metrics.records.WithLabelValues(dropped).Inc()
		return
	}
	b := t.batch(partition)
	before := len(b.lines)
	b.lines = appendLine(b.lines, r)
	b.records++
	if t.options.Kind == JobRunner {
		b.hashes = append(b.hashes, hash)
	} else if b.last = max(b.last, r.Sequence); b.first == 0 || r.Sequence < b.first {
		b.first = r.Sequence
	}
	t.pending += len(b.lines) - before
	if len(b.lines) >= batchBytes || len(b.hashes) >= mostHashes {
		delete(t.open, partition)
		t.full = append(t.full, b)
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

// batch gives the one that records of a partition go to.
func (t *Recorder) batch(partition int) *batch {
	b := t.open[partition]
	if b == nil {
		if n := len(t.spare); n > 0 {
			b, t.spare = t.spare[n-1], t.spare[:n-1]
		} else {
			b = new(batch)
		}
		b.partition = partition
		t.open[partition] = b
	}
	return b
}

// Run sends what is recorded until ctx ends, then what is left, within 2 s. It may be called once.
func (t *Recorder) Run(ctx context.Context) {
	defer t.packer.Close()
	tick := time.NewTicker(t.options.every)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			t.send(ctx, t.take(true))
		case <-t.wake:
			t.send(ctx, t.take(false))
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendWithin)
	defer cancel()
	t.send(last, t.take(true))
	t.discard(t.take(true))
}

// take gives the batches that are full, or all.
func (t *Recorder) take(all bool) []*batch {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.full
	t.full = nil
	if all {
		for partition, b := range t.open {
			list = append(list, b)
			delete(t.open, partition)
		}
	}
	return list
}

// send sends batches one after the other. While the server does not take one it tries again until ctx ends; what is
// recorded meanwhile piles up to its bound. What is left when ctx ends is given back.
func (t *Recorder) send(ctx context.Context, list []*batch) {
	for i, b := range list {
		msg := b.message(t.options, t.packer)
		for pause := leastPause; ; pause = min(2*pause, mostPause) {
			err := t.publish(context.WithoutCancel(ctx), msg)
			if err == nil {
				t.silent = false
				t.options.Metrics.bytes.Add(float64(len(msg.Data)))
				t.release(b, written)
				break
			}
			if !t.silent {
				t.silent = true
				t.options.Log.Warn("traces are not written; what does not fit into memory meanwhile is dropped", "error", err)
			}
			if hopeless(err) {
				t.release(b, dropped)
				break
			}
			if !wait(ctx, pause) {
				t.mu.Lock()
				t.full = append(list[i:], t.full...)
				t.mu.Unlock()
				return
			}
		}
	}
}

func (t *Recorder) discard(list []*batch) {
	for _, b := range list {
		t.release(b, dropped)
	}
}

func (t *Recorder) publish(ctx context.Context, msg *nats.Msg) error {
	if !t.js.Conn().IsConnected() { // what the client keeps for later would come without a bound
		return nats.ErrDisconnected
	}
	ctx, cancel := context.WithTimeout(ctx, sendWithin)
	defer cancel()
	_, err := t.js.PublishMsg(ctx, msg)
	return err
}

// hopeless tells whether the server has refused this very message.
func hopeless(err error) bool {
	const badRequest = 400
	var refused *jetstream.APIError
	return errors.Is(err, nats.ErrMaxPayload) || errors.As(err, &refused) && refused.Code == badRequest
}

func wait(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// release counts what became of a batch, and takes its memory back.
func (t *Recorder) release(b *batch, outcome string) {
	t.options.Metrics.records.WithLabelValues(outcome).Add(float64(b.records))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending -= len(b.lines)
	if len(t.spare) < mostSpare {
		*b = batch{lines: b.lines[:0], hashes: b.hashes[:0]}
		t.spare = append(t.spare, b)
	}
}

// Headers of a message.
const (
	headerVersion   = "Tributary-Trace"
	headerBy        = "Tributary-By"
	headerSequences = "Tributary-Sequences" // first-last
	headerHashes    = "Tributary-Hashes"    // 8 hex each

	version = "1"
)

// Subject is where the records of a partition go.
func Subject(partition int, kind Kind) string {
	return "traces." + events.PartitionName(partition) + "." + string(kind)
}

func (b *batch) message(o Options, packer *zstd.Encoder) *nats.Msg {
	msg := nats.NewMsg(Subject(b.partition, o.Kind))
	msg.Header[headerVersion] = []string{version}
	msg.Header[headerBy] = []string{o.By}
	if o.Kind == JobRunner {
		raw := make([]byte, 0, 4*len(b.hashes))
		for _, h := range b.hashes {
			raw = binary.BigEndian.AppendUint32(raw, h)
		}
		msg.Header[headerHashes] = []string{hex.EncodeToString(raw)}
	} else {
		msg.Header[headerSequences] = []string{strconv.FormatUint(b.first, 10) + "-" + strconv.FormatUint(b.last, 10)}
	}
	msg.Data = packer.EncodeAll(b.lines, nil)
	return msg
}

// hashOf is the same in every process, so that all of them sample the same events.
func hashOf(event string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(event)) // a hash takes everything
	return scatter(h.Sum32())
}

// scatter spreads what FNV leaves close together, for ids differ in their last bytes alone (the end of MurmurHash3).
func scatter(x uint32) uint32 {
	x ^= x >> 16
	x *= 0x85ebca6b
	x ^= x >> 13
	x *= 0xc2b2ae35
	return x ^ x>>16
}
