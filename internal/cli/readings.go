package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tributary-dev/tributary/internal/ask"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/pgcdc"
)

// list shows what the position says of readings, whether or not anybody leads the source.
func (c *snapshotCommand) list(in *Invocation, source string) error {
	return in.look(func(ctx context.Context, d *deployment) error {
		stream, err := d.JS.Stream(ctx, events.StreamEvents)
		if err != nil {
			return fmt.Errorf("open EVENTS: %w", err)
		}
		reading, ended, err := readingsOf(ctx, stream, source)
		if err != nil {
			return err
		}
		if in.wantsJSON() {
			return in.json(map[string]any{"source": source, "reading": append([]pgcdc.Progress{}, reading...), "ended": append([]pgcdc.Ended{}, ended...)})
		}
		p := in.text()
		if len(reading)+len(ended) == 0 {
			p.line("No rows are being read, and none were asked for lately.")
		}
		for _, r := range reading {
			p.line("%-26s  %s", orDash(r.ID), progressLine(r))
		}
		for _, e := range ended {
			state := "done"
			if e.Error != "" && !e.Cancelled {
				state = "failed: "
			} else if e.Cancelled {
				state = ""
			}
			p.line("%-26s  rows of %s: %s, %d rows, %s", e.ID, clean(e.Table), strings.TrimSpace(state+clean(e.Error)), e.Rows, e.Time.Format("2006-01-02 15:04:05"))
		}
		return p.err
	})
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// cancel has whoever leads the source end a reading.
func (c *snapshotCommand) cancel(in *Invocation, source string) error {
	return in.work(func(d *deployment) error {
		asking, cancel := context.WithTimeout(in.Ctx, answerWithin)
		defer cancel()
		answer, err := ask.Leader(asking, d.nc, source, pgcdc.Ask{ID: strings.ToLower(c.Cancel), Who: who(), Cancel: true})
		switch {
		case errors.Is(err, pgcdc.ErrUnfit):
			return usage("%v", err)
		case errors.Is(err, ask.ErrNobody):
			return fmt.Errorf("%w: is ingest running, and its first snapshot done? tributary status tells", err)
		case err != nil:
			return err
		}
		if in.wantsJSON() {
			return in.json(map[string]any{"id": answer.ID, "source": source, "table": answer.Table, "rows": answer.Rows, "cancelled": true})
		}
		p := in.text()
		p.line("%s is cancelled; %d rows of %s came before.", answer.ID, answer.Rows, clean(answer.Table))
		return p.err
	})
}
