package worker

// What an observer that is paused is to do waits as ranges of EVENTS, beside what waits for circuits, and is drained when
// the observer goes on. Of an event that comes meanwhile nothing is evaluated: it waits for every action of the observer
// that it may concern by its source, entity and op, and is judged by the generation that is in force when it is drained.
// What was judged before, and had not begun, waits too, and stays judged. No age ends the waiting but that of EVENTS.

// unjudged is the generation, in spans of ranges, of events that are judged when they are drained.
const unjudged = ""

// rests tells whether the effect waits until its observer goes on. A condition that failed is a dead letter all the same.
func (x *effect) rests() bool {
	return x.due.action != "" && !x.expired && (x.due.resting || x.owner.w.rests(x.due.observer))
}

// rests tells whether an observer is paused.
func (w *Worker) rests(observer string) bool { return w.rules.Current().Paused(observer) }

// judgedBy is the generation by which the effect is judged when it is drained.
func (x *effect) judgedBy() string {
	if x.due.resting {
		return unjudged
	}
	return x.due.generation
}
