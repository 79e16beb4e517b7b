package ingest

import "time"

// Trouble is what health says of a feed.
func Trouble(f *Feed, now time.Time) string { return f.trouble(now) }
