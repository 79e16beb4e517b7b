package worker

// fifo is first in, first out. The zero value is empty.
type fifo[T any] struct {
	items []T
	head  int
}

func (q *fifo[T]) len() int { return len(q.items) - q.head }

func (q *fifo[T]) push(v T) {
	if q.head > 0 && len(q.items) == cap(q.items) { // move over what was taken, rather than grow
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	q.items = append(q.items, v)
}

// pushFront puts v before the first.
func (q *fifo[T]) pushFront(v T) {
	if q.head == 0 {
		q.items = append([]T{v}, q.items...)
		return
	}
	q.head--
	q.items[q.head] = v
}

// first gives the first, which must be there.
func (q *fifo[T]) first() T { return q.items[q.head] }

// pop takes the first, which must be there.
func (q *fifo[T]) pop() T {
	var none T
	v := q.items[q.head]
	q.items[q.head] = none
	q.head++
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	return v
}

// take empties the queue and gives what was in it.
func (q *fifo[T]) take() []T {
	items := q.items[q.head:]
	*q = fifo[T]{}
	return items
}
