// Package log is the action that writes an effect to the service's log. It always succeeds.
package log

import (
	"context"
	"encoding/json"
	"log/slog"

	"github.com/tributary-dev/tributary/pkg/actions"
)

// Type is the type of requests that this package does.
const Type = "log"

// Log is the action. It is safe for concurrent use.
type Log struct{ logger *slog.Logger }

// New makes the action.
func New(logger *slog.Logger) *Log { return &Log{logger: logger} }

// Do writes one line of the level that the request has for a method: the rendered body as its message, and the names of the effect beside it.
func (l *Log) Do(ctx context.Context, effect actions.Effect, request actions.Request) (actions.Outcome, error) {
	level := level(request.Method)
	if !l.logger.Enabled(ctx, level) {
		return actions.Outcome{}, nil
	}
	l.logger.LogAttrs(ctx, level, message(request.Body),
		slog.String("observer", effect.Observer), slog.String("action", effect.Action), slog.String("event", effect.EventID),
		slog.String("sequence", effect.Sequence))
	return actions.Outcome{}, nil
}

// level reads a level as slog writes it; what is none is info.
func level(method string) slog.Level {
	var level slog.Level
	if err := level.UnmarshalText([]byte(method)); err != nil {
		return slog.LevelInfo
	}
	return level
}

// message takes a JSON string for its text, and everything else as it is.
func message(body []byte) string {
	var text *string // nil for null
	if json.Unmarshal(body, &text) == nil && text != nil {
		return *text
	}
	return string(body)
}
