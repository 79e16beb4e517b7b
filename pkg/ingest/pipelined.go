package ingest

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A fast batch of JetStream is a row of publishes of which none waits for another's answer. In the mode "fail" the server
// ends it at the first message that is missing or refused, and stores nothing of it that comes behind. So what is stored is
// always its beginning, as if its messages had come one by one; and since each of them expects the source's position, a
// takeover ends it, too.
//
// On one replica an atomic batch is written to a file of its own and synced first, which costs more than all the rest. On
// several it is kept in memory, and they refuse a second message with an expectation before the first is stored
// (JSStreamWrongLastSequenceConstant): there, atomic batches are the way.
//
// What a fast batch is told by lies in the reply subjects: <prefix>.<batch>.<flow>.<mode>.<number>.<operation>.$FI.
const (
	fastFlow = ".500.fail." // an acknowledgement each so many messages, and the mode

	fastStart  = ".0.$FI"
	fastAppend = ".1.$FI"
	fastCommit = ".2.$FI"
)

// mayPipeline tells whether the stream takes fast batches of fenced messages.
func mayPipeline(stream jetstream.Stream) bool {
	config := stream.CachedInfo().Config
	return config.AllowBatchPublish && config.Replicas <= 1
}

// storePipelined stores items as a fast batch, and removes from g what was stored, also where it errs.
func (f *fence) storePipelined(ctx context.Context, g *group) error {
	f.batches++
	prefix := f.inbox + "." + f.leader[len(f.leader)-nuidLen:] + "-" + strconv.FormatUint(f.batches, 36) + fastFlow
	f.resetHeader()
	f.expect(f.sequence)
	f.header[headerContentType] = contentType
	for i := range g.items {
		operation := fastAppend
		switch i {
		case len(g.items) - 1:
			operation = fastCommit
		case 0:
			operation = fastStart
		}
		if err := f.send(g.items[i].Subject, prefix+strconv.Itoa(i+1)+operation, g.items[i].Data); err != nil {
			return err
		}
	}
	stored, sequence, err := f.awaitPipelined(ctx, prefix)
	if stored > len(g.items) {
		return fmt.Errorf("%w: %d messages of %d were acknowledged", errDoubt, stored, len(g.items))
	}
	if stored > 0 {
		f.acknowledge(sequence, g.items[stored-1].Subject)
	}
	for i := range stored {
		f.stored(&g.items[i])
	}
	g.items = g.items[stored:]
	if err == nil && len(g.items) > 0 {
		err = fmt.Errorf("%w: %d messages of a batch were not acknowledged", errDoubt, len(g.items))
	}
	return err
}

// fastAnswer is what comes while a fast batch is stored: flow control, a reason for its end, or at last an acknowledgement.
type fastAnswer struct {
	Type  string `json:"type"` // ack, gap, err; empty for an acknowledgement, and for the refusal of the first message
	Count int    `json:"count"`
	pubAck
}

// awaitPipelined waits until the batch under prefix has ended, and tells how much of it is stored, and why not all is.
func (f *fence) awaitPipelined(ctx context.Context, prefix string) (stored int, sequence uint64, err error) {
	timer := time.NewTimer(answerTimeout)
	defer timer.Stop()
	var reason error
	for {
		select {
		case <-ctx.Done():
			return 0, 0, context.Cause(ctx)
		case <-timer.C:
			return 0, 0, fmt.Errorf("%w within %v", errDoubt, answerTimeout)
		case msg := <-f.replies:
			if !strings.HasPrefix(msg.Subject, prefix) {
				continue
			}
			timer.Reset(answerTimeout)
			answer, err := readFastAnswer(msg)
			switch {
			case err != nil:
				return 0, 0, err
			case answer.Type == "ack":
			case answer.Type == "gap":
				reason = fmt.Errorf("%w: a message of a batch was lost", errDoubt)
			case answer.Error == nil:
				return answer.Count, answer.Seq, reason
			case answer.Type == "err":
				reason = judgeAnswer(&answer.pubAck)
			case reason == nil: // of the first message: there is no batch
				return 0, 0, judgeAnswer(&answer.pubAck)
			}
		}
	}
}

func readFastAnswer(msg *nats.Msg) (answer fastAnswer, err error) {
	if len(msg.Data) == 0 {
		return answer, fmt.Errorf("%w: status %q", errDoubt, msg.Header.Get("Status"))
	}
	if err := json.Unmarshal(msg.Data, &answer); err != nil {
		return answer, fmt.Errorf("%w: answer %q: %w", errDoubt, msg.Data, err)
	}
	return answer, nil
}
