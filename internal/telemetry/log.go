// Package telemetry is what a service shows of itself: logs on standard error, metrics, and the two questions of an
// orchestrator: does it live, and does it do its job.
//
// Nothing here is global: each service makes its own logger, registry, conditions and HTTP server. Logs and metrics hold no
// payloads and no secrets; that is up to who writes them.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"
)

// NewLogger makes a logger of level debug, info, warn or error, in the format text or json.
func NewLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log.level must be debug, info, warn or error, got %q", level)
	}
	options := &slog.HandlerOptions{Level: least}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	default:
		return nil, fmt.Errorf("log.format must be text or json, got %q", format)
	}
}
