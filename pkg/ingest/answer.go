package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// What EVENTS may answer, as far as it decides what is done next.
var (
	errStale = errors.New("the position is not the one expected") // read, then decide
	errFull  = errors.New("EVENTS is full")                       // refused for certain: again, later
	errAgain = errors.New("EVENTS can't take it now")             // refused for certain: again
	errDoubt = errors.New("no answer")                            // stored or not: settle
)

// The server's error codes that decide something (nats-server, errors.json).
const (
	codeWrongLastSequence         = 10071
	codeWrongLastSequenceConstant = 10164 // replicated: another fenced publish is in flight
	codeStoreFailed               = 10077 // maximum bytes or messages, with discard new
	codeInsufficientResources     = 10023
	codeAccountResources          = 10002
	codeBatchIncomplete           = 10176
	codeTooManyBatches            = 10210
	codeFastBatchDisabled         = 10205
	codeUnknownFastBatch          = 10208
	codeTooManyFastBatches        = 10211
)

type pubAck struct {
	Seq   uint64 `json:"seq"`
	Error *struct {
		Code        int    `json:"code"`
		ErrCode     uint16 `json:"err_code"`
		Description string `json:"description"`
	} `json:"error"`
}

// readAck gives the stored sequence, or one of the errors above, or what else the server said.
func readAck(msg *nats.Msg) (uint64, error) {
	if len(msg.Data) == 0 { // 503: nobody serves the stream at this moment; nothing was stored by this answer's giver
		return 0, fmt.Errorf("%w: status %q", errDoubt, msg.Header.Get("Status"))
	}
	var ack pubAck
	if err := json.Unmarshal(msg.Data, &ack); err != nil {
		return 0, fmt.Errorf("%w: answer %q: %w", errDoubt, msg.Data, err)
	}
	if ack.Error == nil {
		return ack.Seq, nil
	}
	return 0, judgeAnswer(&ack)
}

// judgeAnswer gives what an answer with an error decides.
func judgeAnswer(ack *pubAck) error {
	said := fmt.Errorf("%s (%d)", ack.Error.Description, ack.Error.ErrCode)
	switch ack.Error.ErrCode {
	case codeWrongLastSequence:
		return fmt.Errorf("%w: %w", errStale, said)
	case codeStoreFailed, codeInsufficientResources, codeAccountResources:
		return fmt.Errorf("%w: %w", errFull, said)
	case codeWrongLastSequenceConstant, codeTooManyBatches, codeTooManyFastBatches, codeFastBatchDisabled:
		return fmt.Errorf("%w: %w", errAgain, said)
	case codeBatchIncomplete, codeUnknownFastBatch:
		return fmt.Errorf("%w: %w", errDoubt, said)
	default:
		if ack.Error.Code == 503 {
			return fmt.Errorf("%w: %w", errDoubt, said)
		}
		return said
	}
}

// request publishes one message with the prepared header, and waits for its answer.
func (f *fence) request(ctx context.Context, subject string, data []byte) (uint64, error) {
	reply := f.replySubject()
	if err := f.send(subject, reply, data); err != nil {
		return 0, err
	}
	answer, err := f.await(ctx, reply)
	if err != nil {
		return 0, err
	}
	sequence, err := readAck(answer)
	if err == nil {
		f.acknowledge(sequence, subject)
	}
	return sequence, err
}

func (f *fence) send(subject, reply string, data []byte) error {
	err := f.nc.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Header: f.header, Data: data})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("publish to %s: %w", subject, err)
	default: // disconnected: what went before may or may not have arrived
		return fmt.Errorf("%w: publish to %s: %w", errDoubt, subject, err)
	}
}

func (f *fence) replySubject() string {
	f.tokens++
	return f.inbox + "." + strconv.FormatUint(f.tokens, 10)
}

// await waits for the answer at reply; answers at earlier subjects are too late to matter.
func (f *fence) await(ctx context.Context, reply string) (*nats.Msg, error) {
	timer := time.NewTimer(answerTimeout)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-timer.C:
			return nil, fmt.Errorf("%w within %v", errDoubt, answerTimeout)
		case msg := <-f.replies:
			if msg.Subject == reply {
				return msg, nil
			}
			if err := f.strayError(msg); err != nil {
				return nil, err
			}
		}
	}
}

// strayError reads an answer to the first message of the batch under way: it says why the batch will be refused.
func (f *fence) strayError(msg *nats.Msg) error {
	token, ok := strings.CutPrefix(msg.Subject, f.inbox+".")
	if !ok || token != strconv.FormatUint(f.tokens-1, 10) || len(msg.Data) == 0 {
		return nil
	}
	_, err := readAck(msg)
	return err
}
