package pgcdc

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestCatalogGivesTheConnectionsErrorAndAsksAgain(t *testing.T) {
	gone, asked := errors.New("gone"), 0
	catalog := NewCatalog(func(context.Context, string, ...any) (pgx.Rows, error) {
		asked++
		return nil, gone
	})
	for range 2 {
		if typ, err := catalog.Type(t.Context(), 16385); !errors.Is(err, gone) {
			t.Errorf("Type = %v, %v", typ, err)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}

func TestCatalogWaitsForItsTurnNoLongerThanTheContext(t *testing.T) {
	asking, answer := make(chan struct{}), make(chan struct{})
	gone := errors.New("gone")
	catalog := NewCatalog(func(context.Context, string, ...any) (pgx.Rows, error) {
		close(asking)
		<-answer
		return nil, gone
	})
	first := make(chan error)
	go func() {
		_, err := catalog.Type(t.Context(), 16385)
		first <- err
	}()
	<-asking
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := catalog.Type(ctx, 16386); !errors.Is(err, context.Canceled) {
		t.Errorf("the second caller gets %v", err)
	}
	if typ, err := catalog.Type(ctx, 23); err != nil || typ.Name != "int4" {
		t.Errorf("a built-in type has to wait: %v, %v", typ, err)
	}
	close(answer)
	if err := <-first; !errors.Is(err, gone) {
		t.Errorf("the first caller gets %v", err)
	}
}
