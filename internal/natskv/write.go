package natskv

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// fence is what a write expects of its key.
type fence int

const (
	none    fence = iota
	absent        // nothing, or a marker of a delete
	exactly       // the expected revision
)

type write struct {
	key      string
	value    []byte
	ttl      time.Duration
	fence    fence
	expected uint64 // revision; of a marker where fence is absent
}

// write stores w. Along with ErrConflict of an absent fence it gives the entry that is there.
func (b *Bucket) write(ctx context.Context, w write) (Entry, error) {
	var entry Entry
	inDoubt := false // an answer was lost, so what is there may be ours
	err := b.again(ctx, func(ctx context.Context) (verdict, error) {
		msg, err := b.message(w)
		if err != nil {
			return refused, err
		}
		data, err := b.request(ctx, msg)
		if err == nil {
			entry = Entry{Value: w.value}
			entry.Revision, err = parseAck(data)
		}
		if errors.Is(err, nats.ErrNoResponders) {
			// Nobody listens on the subject: the server is starting, or the bucket is not there. A read knows which.
			if _, err := b.lastOnce(ctx, w.key); judge(err) == refused {
				return refused, err
			}
		}
		v := judge(err)
		switch v {
		case unanswered:
			inDoubt = true
			return v, err
		case stale:
			there, err := b.lastOnce(ctx, w.key)
			if err != nil {
				return judge(err), err
			}
			if inDoubt && !there.absent && there.Revision > w.expected && bytes.Equal(there.Value, w.value) {
				entry = there.Entry
				return done, nil
			}
			if w.fence == absent && there.absent {
				w.expected = there.Revision
				return retryNow, errors.New("the key has just gone")
			}
			entry = there.Entry
			return refused, ErrConflict
		case done, again, retryNow, refused:
			return v, err
		default:
			panic("unreachable: a verdict without a case")
		}
	})
	return entry, err
}

// message makes the publish of w. KV clients would send the same, but for the TTL of an update, which they drop.
func (b *Bucket) message(w write) (*nats.Msg, error) {
	if !validKey(w.key) {
		return nil, fmt.Errorf("%w: %q", jetstream.ErrInvalidKey, w.key)
	}
	header := make(nats.Header, 2)
	if w.fence != none {
		header[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(w.expected, 10)}
	}
	if w.ttl > 0 {
		seconds := (w.ttl + time.Second - 1) / time.Second
		header[jetstream.MsgTTLHeader] = []string{strconv.FormatInt(int64(seconds), 10)}
	}
	return &nats.Msg{Subject: b.prefix + w.key, Header: header, Data: w.value}, nil
}

func parseAck(data []byte) (uint64, error) {
	var ack struct {
		Error    *jetstream.APIError `json:"error"`
		Sequence uint64              `json:"seq"`
	}
	if err := json.Unmarshal(data, &ack); err != nil {
		return 0, fmt.Errorf("answer is no acknowledgement: %w", err)
	}
	if ack.Error != nil {
		return 0, ack.Error
	}
	if ack.Sequence == 0 {
		return 0, errors.New("answer is no acknowledgement: it has no sequence")
	}
	return ack.Sequence, nil
}

// purge removes a key up to a revision: the sequence in the request is the fence, for what is newer stays.
func (b *Bucket) purge(ctx context.Context, key string, revision uint64) error {
	if !validKey(key) {
		return fmt.Errorf("%w: %q", jetstream.ErrInvalidKey, key)
	}
	msg := nats.NewMsg(apiPrefix + "STREAM.PURGE." + b.stream)
	msg.Data = fmt.Appendf(nil, `{"filter":"%s%s","seq":%d}`, b.prefix, key, revision+1)
	return b.again(ctx, func(ctx context.Context) (verdict, error) {
		data, err := b.request(ctx, msg)
		if err != nil {
			return judge(err), err
		}
		var answer struct {
			Error  *jetstream.APIError `json:"error"`
			Purged uint64              `json:"purged"`
		}
		if err := json.Unmarshal(data, &answer); err != nil {
			return refused, fmt.Errorf("answer is not one of a purge: %w", err)
		}
		if answer.Error != nil {
			return judge(answer.Error), answer.Error
		}
		if answer.Purged > 0 {
			return done, nil
		}
		there, err := b.lastOnce(ctx, key)
		switch {
		case err != nil:
			return judge(err), err
		case there.absent:
			return done, nil
		case there.Revision > revision:
			return refused, ErrConflict
		default:
			return again, errors.New("the purge removed nothing")
		}
	})
}
