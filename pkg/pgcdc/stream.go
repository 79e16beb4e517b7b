package pgcdc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sync/errgroup"

	"github.com/tributary-dev/tributary/pkg/events"
)

// errEnded is the end of a stream by the server, when it shuts down.
var errEnded = errors.New("the server ended the stream")

// stream reads the slot from r.state on, until ctx ends or the connection does.
func (r *run) stream(ctx context.Context) error {
	cursor, err := parseReadings(r.state.Position.Cursor)
	if err != nil {
		return refused("the cursor of %s can't be read (%w): run the version that wrote it, or start over with: %s", r.opts.Name, err, r.resetCommand())
	}
	r.out.position.Cursor = r.state.Position.Cursor
	conn, err := r.openReplication(ctx)
	if err != nil {
		return err
	}
	start := r.state.Through
	if err := startReplication(ctx, conn, r.opts.Slot, r.opts.Publication, start); err != nil {
		closeConn(ctx, conn)
		return r.explainStart(err)
	}
	wire, err := conn.Hijack()
	if err != nil {
		closeConn(ctx, conn)
		return fmt.Errorf("take over the replication connection: %w", err)
	}
	r.opts.Log.Info("reading changes", "slot", r.opts.Slot, "from", start.String(), "behind", r.state.Last.String())

	status := &status{
		conn: wire.Conn, timeout: r.opts.ReceiveTimeout, confirmable: r.feed.Confirmable, blocked: r.out.blockedFor, inTouch: r.feed.InTouch,
		metrics: r.metrics, asked: make(chan struct{}, 1),
	}
	status.hear(start, time.Now())
	beat := &heartbeat{run: r}
	added := newReadings(r, cursor)
	s := &stream{run: r, wire: wire.Frontend, status: status, decoder: r.newDecoder(beat, added), beat: beat, every: r.markEvery(), marked: time.Now(), end: start}

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return status.run(ctx) })
	group.Go(func() error { return beat.loop(ctx) })
	group.Go(func() error { return added.loop(ctx) })
	group.Go(func() error { return (&watch{run: r, status: status, beat: beat}).loop(ctx) })
	group.Go(func() error { return added.serve(ctx) })
	group.Go(func() error { return s.read(ctx) })
	group.Go(func() error { // a read or a write that hangs ends with the rest
		<-ctx.Done()
		_ = wire.Conn.Close()
		return context.Cause(ctx)
	})
	return group.Wait()
}

// startReplication has the server send the slot's changes from start on: the transactions whose commit record begins
// there or later.
func startReplication(ctx context.Context, conn *pgconn.PgConn, slot, publication string, start events.LSN) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	command := fmt.Sprintf(`START_REPLICATION SLOT %s LOGICAL %s (proto_version '1', publication_names %s, messages 'true')`,
		quoteIdent(slot), start, quoteLiteral(quoteIdent(publication)))
	conn.Frontend().SendQuery(&pgproto3.Query{String: command})
	if err := conn.Frontend().Flush(); err != nil {
		return fmt.Errorf("start replication: %w", err)
	}
	for {
		message, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return fmt.Errorf("start replication: %w", err)
		}
		switch m := message.(type) {
		case *pgproto3.CopyBothResponse:
			return nil
		case *pgproto3.ErrorResponse:
			return fmt.Errorf("start replication: %w", pgconn.ErrorResponseToPgError(m))
		}
	}
}

// explainStart refuses what will not pass by itself.
func (r *run) explainStart(err error) error {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return err
	}
	switch answer.Code {
	case codeObjectInUse:
		return fmt.Errorf("slot %s is in use: %s: another reader has it, or one that died is not noticed yet", r.opts.Slot, answer.Message)
	case codeUndefinedObject:
		return refused("start replication: %s: what %s needs was dropped; to start over with a new slot and snapshot: %s", answer.Message, r.opts.Name, r.resetCommand())
	default:
		return err
	}
}

func (r *run) resetCommand() string { return "tributary snapshot --reset " + r.opts.Name }

func (r *run) newDecoder(beat *heartbeat, added *readings) *decoder {
	describer := &describer{query: r.query, catalog: r.catalog, patterns: r.patterns, masking: r.masking}
	d := &decoder{
		source: r.opts.Name, incarnation: r.out.position.Incarnation, partitions: r.opts.Partitions, stored: r.state.Last,
		rowEncoder: r.newEncoder(), describe: describer.describe, renew: r.renew, put: r.out.event, heartbeat: beat.came, metrics: r.metrics, sieve: r.newSieve(),
		own: added.came, touched: added.touched, emptied: added.emptied,
	}
	d.init()
	return d
}

func (r *run) renew(ctx context.Context, rel *relation, commit events.LSN) error {
	return rel.renew(ctx, r.catalog, commit)
}

func (r *run) newEncoder() rowEncoder {
	return rowEncoder{refresh: r.catalog.Refresh, textValues: r.metrics.textValues}
}

// markEvery is how often progress that no event carries is stored at most.
func (r *run) markEvery() time.Duration {
	const otherwise = 10 * time.Second
	if r.opts.Heartbeat == 0 {
		return otherwise
	}
	return r.opts.Heartbeat
}

// stream is the reader's state.
type stream struct {
	*run
	wire    *pgproto3.Frontend
	status  *status
	decoder *decoder
	beat    *heartbeat
	every   time.Duration
	marked  time.Time  // when a mark was last put
	end     events.LSN // every commit that begins before it came
}

func (s *stream) read(ctx context.Context) error {
	for {
		// A transaction comes at once, after its commit: waiting for its end makes no event late, and batches large.
		if s.wire.ReadBufferLen() == 0 && !s.decoder.open {
			if err := s.out.flush(ctx); err != nil {
				return err
			}
		}
		message, err := s.wire.Receive()
		if err != nil {
			return fmt.Errorf("read the stream: %w", err)
		}
		switch m := message.(type) {
		case *pgproto3.CopyData:
			if err := s.handle(ctx, m.Data); err != nil {
				return err
			}
		case *pgproto3.ErrorResponse:
			return s.explainStart(fmt.Errorf("read the stream: %w", pgconn.ErrorResponseToPgError(m)))
		case *pgproto3.NoticeResponse:
			if m.Code == codeObjectNotInState { // from version 18 on, a change that no publication covers is left out with a warning
				return refused("%s: publication %s was made anew, and what committed without it is not sent; to start over with a new slot and snapshot: %s",
					m.Message, s.opts.Publication, s.resetCommand())
			}
		case *pgproto3.ParameterStatus:
		case *pgproto3.CopyDone, *pgproto3.CommandComplete, *pgproto3.ReadyForQuery:
			return errEnded
		default:
			return fmt.Errorf("%w: %s", errMalformed, strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3."))
		}
	}
}

func (s *stream) handle(ctx context.Context, data []byte) error {
	f, err := parseFrame(data)
	if err != nil {
		return err
	}
	s.status.hear(f.end, time.Now())
	if f.kind == kindWAL {
		s.beat.data.Add(1)
		if err := s.decoder.decode(ctx, f.data); err != nil {
			return err
		}
		if !s.decoder.open && s.decoder.through > s.end {
			s.end = s.decoder.through
			s.progress()
		}
		return nil
	}
	if f.reply {
		s.status.ask()
	}
	if !s.decoder.open {
		s.end = max(s.end, f.end)
		s.progress()
	}
	return nil
}

// progress marks how far the stream came, where no event that is on its way will say so.
func (s *stream) progress() {
	if s.end <= s.out.position.EndLSN || time.Since(s.marked) < s.every || !s.out.idle() {
		return
	}
	s.out.mark(s.end)
	s.marked = time.Now()
}
