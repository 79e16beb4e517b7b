package natskv

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// message is the last one of a key. Where it is absent, the revision is that of a marker, or 0.
type message struct {
	Entry
	absent bool
}

func (b *Bucket) last(ctx context.Context, key string) (message, error) {
	var found message
	err := b.again(ctx, func(ctx context.Context) (v verdict, err error) {
		found, err = b.lastOnce(ctx, key)
		return judge(err), err
	})
	return found, err
}

// lastOnce asks the leader: a direct get is answered by any replica, and was seen to be behind.
func (b *Bucket) lastOnce(ctx context.Context, key string) (message, error) {
	if !validKey(key) {
		return message{}, fmt.Errorf("%w: %q", jetstream.ErrInvalidKey, key)
	}
	request := nats.NewMsg(apiPrefix + "STREAM.MSG.GET." + b.stream)
	request.Data = fmt.Appendf(nil, `{"last_by_subj":"%s%s"}`, b.prefix, key)
	data, err := b.request(ctx, request)
	if err != nil {
		return message{}, err
	}
	_, found, err := b.parseMessage(data)
	return found, err
}
