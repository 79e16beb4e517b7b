package sql

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/tributary-dev/tributary/pkg/retry"
)

// Read runs a statement with bound parameters, JSON as in calls, in the database whose URL a reference names, and gives the
// first column of the first row as text; nil for NULL, and where there is no row. It errs as Do does.
func (s *SQL) Read(ctx context.Context, reference, statement string, args [][]byte) ([]byte, error) {
	var answer []byte
	err := s.pools.with(ctx, reference, func(conn *pgconn.PgConn) error {
		prepared, err := conn.Prepare(ctx, "", statement, nil)
		if err != nil {
			return judge(err)
		}
		if len(prepared.ParamOIDs) != len(args) {
			return retry.Permanent(fmt.Errorf("the statement has %d parameters, and %d are given", len(prepared.ParamOIDs), len(args)))
		}
		values := make([][]byte, len(args))
		for i, arg := range args {
			if values[i], err = bind(arg, prepared.ParamOIDs[i]); err != nil {
				return retry.Permanent(fmt.Errorf("argument %d: %w", i+1, err))
			}
		}
		result := conn.ExecPrepared(ctx, "", values, nil, nil)
		if result.NextRow() && len(result.Values()) > 0 {
			answer = bytes.Clone(result.Values()[0])
		}
		_, err = result.Close()
		return judge(err)
	})
	switch {
	case err == nil:
		return answer, nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = context.DeadlineExceeded
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return nil, fmt.Errorf("read from %s: %w", reference, err)
}
