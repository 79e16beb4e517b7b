package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNotEmpty is the error of Open for a database that is somebody's.
var ErrNotEmpty = errors.New("the database has tables in it")

// Shop is the demo's tables in a database.
type Shop struct {
	url  string
	rows atomic.Int64 // that were committed
}

// Open makes the shop in an empty database. It errs with ErrNotEmpty where there is a table already, or a view.
func Open(ctx context.Context, url string) (*Shop, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("open the shop: %w", err)
	}
	defer hangUp(ctx, conn)
	var first string
	err = conn.QueryRow(ctx, `
		SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
		ORDER BY 1 LIMIT 1`).Scan(&first)
	switch {
	case err == nil:
		return nil, fmt.Errorf("%w, such as %s", ErrNotEmpty, first)
	case !errors.Is(err, pgx.ErrNoRows):
		return nil, fmt.Errorf("open the shop: %w", err)
	}
	customers, err := conn.Exec(ctx, schema) // several statements at once are one transaction
	if err != nil {
		return nil, fmt.Errorf("open the shop: %w", err)
	}
	s := &Shop{url: url}
	s.rows.Store(customers.RowsAffected())
	return s, nil
}

// Close drops what Open made.
func (s *Shop) Close(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return fmt.Errorf("close the shop: %w", err)
	}
	defer hangUp(ctx, conn)
	if _, err := conn.Exec(ctx, `DROP TABLE orders, customers`); err != nil {
		return fmt.Errorf("close the shop: %w", err)
	}
	return nil
}

// Rows is how many rows were changed and committed so far.
func (s *Shop) Rows() int { return int(s.rows.Load()) }

const (
	pace  = 200 * time.Millisecond
	pause = time.Second // before it is tried again
)

// opening is what happens first, so that everything is seen soon.
var opening = []deed{place, place, place, pack, ship, cancel, place, pack, ship, ship}

// Run lets customers order, and the shop do what it does, as soon as somebody reads from the slot, and until ctx ends. A
// database that is away is waited for.
func (s *Shop) Run(ctx context.Context, slot string) error {
	for done := 0; ctx.Err() == nil; {
		if err := s.work(ctx, slot, &done); err != nil && ctx.Err() == nil {
			wait(ctx, pause)
		}
	}
	return nil
}

func (s *Shop) work(ctx context.Context, slot string, done *int) error {
	conn, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return err
	}
	defer hangUp(ctx, conn)
	for read := false; !read; wait(ctx, pace/4) {
		err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND active)`, slot).Scan(&read)
		if err != nil {
			return err
		}
	}
	for ctx.Err() == nil {
		deed := someday()
		if *done < len(opening) {
			deed = opening[*done]
		}
		tag, err := conn.Exec(ctx, deed.statement, deed.arguments()...)
		if err != nil {
			return err
		}
		s.rows.Add(tag.RowsAffected())
		*done++
		wait(ctx, pace)
	}
	return nil
}

// deed is one transaction of the shop.
type deed struct {
	statement string
	arguments func() []any
}

var items = []string{"lamp", "chair", "kettle", "bookshelf", "umbrella", "teapot", "blanket", "clock"}

func nothing() []any { return nil }

var (
	place = deed{`INSERT INTO orders (customer, item, total) VALUES ((SELECT id FROM customers ORDER BY random() LIMIT 1), $1, $2)`, func() []any {
		return []any{items[rand.IntN(len(items))], float64(500+rand.IntN(20_000)) / 100}
	}}
	pack   = deed{`UPDATE orders SET status = 'packed' WHERE id IN (SELECT id FROM orders WHERE status = 'placed' ORDER BY id LIMIT 2)`, nothing}
	ship   = deed{`UPDATE orders SET status = 'shipped' WHERE id = (SELECT id FROM orders WHERE status = 'packed' ORDER BY id LIMIT 1)`, nothing}
	cancel = deed{`UPDATE orders SET status = 'cancelled' WHERE id = (SELECT max(id) FROM orders WHERE status = 'placed')`, nothing}
)

func someday() deed {
	switch n := rand.IntN(100); {
	case n < 45:
		return place
	case n < 65:
		return pack
	case n < 96:
		return ship
	default:
		return cancel
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// hangUp closes a connection, also after ctx ended, but not for long.
func hangUp(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing hangs on it
}
