package deadletter

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Remove removes the record at a sequence of DEADLETTERS with all its parts. It errors with ErrNotFound where none
// begins there.
func Remove(ctx context.Context, js jetstream.JetStream, sequence uint64) error {
	return remove(ctx, js, sequence, func(*jetstream.RawStreamMsg) bool { return true })
}

// Settle removes the record at a sequence of DEADLETTERS where it is the one with this ID, because its action has
// succeeded, or died again. That it is gone is no error.
func (w *Writer) Settle(ctx context.Context, sequence uint64, id string) error {
	err := remove(ctx, w.js, sequence, func(head *jetstream.RawStreamMsg) bool {
		return strings.HasPrefix(head.Header.Get(jetstream.MsgIDHeader), id+roundMark)
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// remove takes the parts first: a record of which some are left can be seen, and be removed once more.
func remove(ctx context.Context, js jetstream.JetStream, sequence uint64, is func(head *jetstream.RawStreamMsg) bool) error {
	stream, err := open(ctx, js)
	if err != nil {
		return err
	}
	head, err := stream.GetMsg(ctx, sequence)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return fmt.Errorf("%w: sequence %d", ErrNotFound, sequence)
	case err != nil:
		return fmt.Errorf("read dead letter %d: %w", sequence, err)
	case !isHead(head):
		return fmt.Errorf("%w: sequence %d is a part of another", ErrNotFound, sequence)
	case !is(head):
		return fmt.Errorf("%w: sequence %d is another one", ErrNotFound, sequence)
	}
	parts, _ := partsOf(head) // one whose parts can't be told goes alone
	for _, message := range append(parts, sequence) {
		if err := deleteMessage(ctx, stream, message); err != nil {
			return fmt.Errorf("remove dead letter %d: %w", sequence, err)
		}
	}
	return nil
}

// deleteMessage deletes a message that may be gone already.
func deleteMessage(ctx context.Context, stream jetstream.Stream, sequence uint64) error {
	err := stream.DeleteMsg(ctx, sequence)
	if errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		if _, look := stream.GetMsg(ctx, sequence); errors.Is(look, jetstream.ErrMsgNotFound) {
			return nil
		}
	}
	return err
}

func open(ctx context.Context, js jetstream.JetStream) (jetstream.Stream, error) {
	stream, err := js.Stream(ctx, events.StreamDeadLetters)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", events.StreamDeadLetters, err)
	}
	return stream, nil
}
