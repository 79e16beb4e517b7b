package indexer

import "time"

// AskingEvery lets a test say how often the index is asked which one it is.
func AskingEvery(o Options, d time.Duration) Options {
	o.identityEvery = d
	return o
}
