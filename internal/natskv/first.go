package natskv

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// First gives the key whose present value was stored before those of all other keys that match the pattern: a token * stands
// for any one token, a last token > for one or more. It errs with ErrNotFound where no key matches.
func (b *Bucket) First(ctx context.Context, pattern string) (key string, entry Entry, err error) {
	var found message
	for from := uint64(1); ; from = found.Revision + 1 {
		err := b.again(ctx, func(ctx context.Context) (v verdict, err error) {
			key, found, err = b.nextOnce(ctx, pattern, from)
			return judge(err), err
		})
		switch {
		case err != nil:
			return "", Entry{}, b.wrap("read first of", pattern, err)
		case found.absent && found.Revision == 0:
			return "", Entry{}, b.wrap("read first of", pattern, ErrNotFound)
		case !found.absent:
			return key, found.Entry, nil
		}
	}
}

// nextOnce asks the leader for the first message from a sequence on.
func (b *Bucket) nextOnce(ctx context.Context, pattern string, from uint64) (string, message, error) {
	if !validPattern(pattern) {
		return "", message{}, fmt.Errorf("%w: %q", jetstream.ErrInvalidKey, pattern)
	}
	request := nats.NewMsg(apiPrefix + "STREAM.MSG.GET." + b.stream)
	request.Data = fmt.Appendf(nil, `{"seq":%d,"next_by_subj":"%s%s"}`, from, b.prefix, pattern)
	data, err := b.request(ctx, request)
	if err != nil {
		return "", message{}, err
	}
	return b.parseMessage(data)
}

func validPattern(pattern string) bool {
	return validKey(strings.NewReplacer("*", "a", ">", "a").Replace(pattern))
}

// parseMessage reads the answer to a get.
func (b *Bucket) parseMessage(data []byte) (key string, found message, err error) {
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Subject  string    `json:"subject"`
			Sequence uint64    `json:"seq"`
			Header   []byte    `json:"hdrs"`
			Data     []byte    `json:"data"`
			Time     time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return "", message{}, fmt.Errorf("answer is no message: %w", err)
	}
	if answer.Error != nil {
		if answer.Error.ErrorCode == codeNoMessageFound {
			return "", message{absent: true}, nil
		}
		return "", message{}, answer.Error
	}
	found = message{Entry: Entry{Value: answer.Message.Data, Revision: answer.Message.Sequence, Written: answer.Message.Time}}
	if len(answer.Message.Header) > 0 {
		header, err := nats.DecodeHeadersMsg(answer.Message.Header)
		if err != nil {
			return "", message{}, fmt.Errorf("header of the message: %w", err)
		}
		found.absent = header.Get("KV-Operation") != "" || header.Get(jetstream.MarkerReasonHeader) != ""
	}
	return strings.TrimPrefix(answer.Message.Subject, b.prefix), found, nil
}
