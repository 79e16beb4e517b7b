package jobs

// A job whose observer is paused is deferred like one whose circuit is open, for as long as the pause lasts.

// resting is put before the observer's name where a record names what it is deferred for. No circuit has a blank in it.
const resting = "observer "

// rests tells whether an observer is paused.
type rests func(observer string) bool

func (r rests) of(observer string) bool { return r != nil && r(observer) }
