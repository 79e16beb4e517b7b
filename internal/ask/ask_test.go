package ask_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/tributary-dev/tributary/internal/ask"
	"github.com/tributary-dev/tributary/internal/natstest"
	"github.com/tributary-dev/tributary/pkg/pgcdc"
)

func TestTheLeaderIsAskedUntilItAnswers(t *testing.T) {
	nc := natstest.Start(t).Conn(t)
	soon, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := ask.Leader(soon, nc, "shop", pgcdc.Ask{ID: "a", Table: "b"}); !errors.Is(err, ask.ErrNobody) {
		t.Fatalf("with nobody there: %v", err)
	}
	tries := 0
	answer := func(_ context.Context, q pgcdc.Ask) (pgcdc.Answer, error) {
		switch tries++; {
		case q.Table == "view":
			return pgcdc.Answer{}, fmt.Errorf("%w: a view", pgcdc.ErrUnfit)
		case tries < 3:
			return pgcdc.Answer{}, errors.New("not yet")
		default:
			return pgcdc.Answer{ID: q.ID, Table: "public." + q.Table, LSN: 7}, nil
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- ask.Serve(ctx, nc, "shop", slog.New(slog.DiscardHandler), answer) }()
	within, done := context.WithTimeout(t.Context(), 30*time.Second)
	defer done()
	got, err := ask.Leader(within, nc, "shop", pgcdc.Ask{ID: "a", Table: "b"})
	if want := (pgcdc.Answer{ID: "a", Table: "public.b", LSN: 7}); err != nil || got != want || tries != 3 {
		t.Errorf("%+v after %d tries, %v", got, tries, err)
	}
	if _, err := ask.Leader(within, nc, "shop", pgcdc.Ask{ID: "c", Table: "view"}); !errors.Is(err, pgcdc.ErrUnfit) || !strings.Contains(err.Error(), "a view") {
		t.Errorf("what can't be done gives %v", err)
	}
	if _, err := ask.Leader(within, nc, "shop", pgcdc.Ask{ID: "d"}); !errors.Is(err, pgcdc.ErrUnfit) {
		t.Errorf("a question without a table gives %v", err)
	}
	stop()
	if err := <-served; !errors.Is(err, context.Canceled) {
		t.Errorf("the end of its context gives %v", err)
	}
}
