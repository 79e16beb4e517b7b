package observers

// strict reads what is said of order: strict alone.
func (l *loader) strict(o *Observer, fields map[string]field) {
	f := fields["when_dead"]
	if o.Order != OrderStrict {
		if f.given() {
			l.fail(f.at, "write order: strict, or leave it out", "when_dead is for order: strict: nothing waits otherwise")
		}
		return
	}
	o.WhenDead = WhenDead(l.choice(f, string(WhenDeadPark), string(WhenDeadPark), string(WhenDeadSkip)))
	if o.WhenDead == WhenDeadPark && o.OnFailure == OnFailureLog {
		at := fields["on_failure"].at
		if f.given() {
			at = f.at
		}
		l.fail(at, "write when_dead: skip, or leave on_failure out",
			"with on_failure: log there is no dead letter to retry or remove, so what waits behind one would wait for ever")
	}
}
