package indexer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
)

// SubjectAgain is where an event is offered to the index once more: a Message in JSON gets an empty object when the
// index has its document.
const SubjectAgain = "tributary.index.again"

// ErrRefused says that the index does not take a document.
var ErrRefused = errors.New("the index refuses the document")

const codeRefused = "422"

// IndexAgain offers an event to the index of whichever indexer answers, as after a dead letter of reason mapping whose
// cause was mended. It is idempotent: a document that is there stays as it is. It errs with ErrRefused, with what the index
// says, with ErrUnavailable or ErrNoIndexer.
func IndexAgain(ctx context.Context, nc *nats.Conn, m Message) error {
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode the event: %w", err)
	}
	var nothing struct{}
	return ask(ctx, nc, SubjectAgain, body, &nothing)
}

// refusedError marks what the index says against a document.
type refusedError struct{ error }

func (s serving) again(ctx context.Context, question []byte) ([]byte, error) {
	if s.Writer == nil {
		return nil, wrongError{errors.New("nothing is written here")}
	}
	var m Message
	if err := json.Unmarshal(question, &m); err != nil {
		return nil, wrongError{fmt.Errorf("the request is not an event in JSON: %w", err)}
	}
	document, err := NewDocument(m)
	if err != nil {
		return nil, wrongError{err}
	}
	outcomes, err := s.Writer.Write(ctx, []Document{document})
	switch {
	case errors.Is(err, ErrBulkRefused):
		return nil, refusedError{err}
	case err != nil:
		return nil, err
	case len(outcomes) != 1:
		return nil, fmt.Errorf("the index gave %d outcomes for one document", len(outcomes))
	}
	switch o := outcomes[0]; o.State {
	case Created, Existed:
		return []byte("{}"), nil
	case Refused:
		return nil, refusedError{o.Err}
	case Again:
		return nil, o.Err
	default:
		return nil, fmt.Errorf("outcome %d is unknown", o.State)
	}
}
