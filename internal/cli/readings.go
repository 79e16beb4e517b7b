package cli

import (
	"cmp"
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
			p.line("%-26s  %s", cmp.Or(r.ID, "-"), progressLine(r))
		}
		for _, e := range ended {
			state := "done"
			switch {
			case e.Cancelled:
				state = clean(e.Error)
			case e.Error != "":
				state = "failed: " + clean(e.Error)
			}
			p.line("%-26s  rows of %s: %s, %d rows, %s", e.ID, clean(e.Table), state, e.Rows, e.Time.Format("2006-01-02 15:04:05"))
		}
		return p.err
	})
}

// askLeader asks whoever leads a source about readings of it.
func askLeader(in *Invocation, d *deployment, source string, question pgcdc.Ask) (pgcdc.Answer, error) {
	ctx, cancel := context.WithTimeout(in.Ctx, answerWithin)
	defer cancel()
	answer, err := ask.Leader(ctx, d.nc, source, question)
	switch {
	case errors.Is(err, pgcdc.ErrUnfit):
		return answer, usage("%v", err)
	case errors.Is(err, ask.ErrNobody):
		return answer, fmt.Errorf("%w: is ingest running, and its first snapshot done? tributary status tells", err)
	default:
		return answer, err
	}
}

// cancel has whoever leads the source end a reading.
func (c *snapshotCommand) cancel(in *Invocation, source string) error {
	return in.work(func(d *deployment) error {
		answer, err := askLeader(in, d, source, pgcdc.Ask{ID: strings.ToLower(c.Cancel), Who: who(), Cancel: true})
		if err != nil {
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
