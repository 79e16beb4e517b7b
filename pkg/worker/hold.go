package worker

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// How a hold is kept. A beat is a pull that no message fits into: it renews the pin, and is answered by what is true
// of it. So a hold is known to last until pinnedTTL after the last answered beat was sent, less the margin.
const (
	beatEvery   = 500 * time.Millisecond
	beatExpires = 300 * time.Millisecond
	pullExpires = 10 * time.Second
	margin      = 500 * time.Millisecond
	mostPulls   = 1 << 10 // sending times that are kept
)

// Why a hold ends before its time. The partition is held anew after each of them.
var (
	errPinLost   = errors.New("another worker has the pin")
	errUnsure    = errors.New("the pin was not confirmed in time")
	errGap       = errors.New("a delivery is missing")
	errTakenOver = errors.New("a claim was taken over")
	errReconnect = errors.New("the connection was renewed")
	errAgain     = errors.New("a delivery has come again")
	errDeaf      = errors.New("the server does not take acknowledgements")
	errMoved     = errors.New("the consumer has moved")
	errNoServer  = errors.New("the consumer is not there")
)

// hold is the time in which one pin of a partition is ours. Deliveries come to an inbox of its own, so that none of an
// earlier hold is taken for one of it.
type hold struct {
	pin   string
	clock func() time.Duration // monotonic
	until atomic.Int64         // of clock: the pin is ours before it; 0 while that was never confirmed
	ended atomic.Pointer[error]

	// The rest belongs to the goroutine of the partition's session.
	began    time.Duration
	inbox    string
	sub      *nats.Subscription
	messages chan *nats.Msg
	number   int                      // of the last pull or beat
	sent     [mostPulls]time.Duration // when pulls and beats were sent, by number
	current  int                      // the pull that is out
	asked    int                      // messages that it was sent for
	left     int                      // messages that it may still bring; 0: no pull is out
	budget   int                      // bytes that it may still bring, where it was sent with a bound
	crowded  bool                     // the next message is larger than what a whole pull allowed
	expected uint64                   // consumer sequence of the next delivery
	last     uint64                   // stream sequence of the last delivery
}

func newHold(nc *nats.Conn, pin string, room int, clock func() time.Duration) (*hold, error) {
	const statuses = 64
	h := &hold{
		pin: pin, clock: clock, began: clock(), inbox: nc.NewInbox(), messages: make(chan *nats.Msg, room+statuses), expected: 1,
	}
	var err error
	if h.sub, err = nc.ChanSubscribe(h.inbox+".*", h.messages); err != nil {
		return nil, fmt.Errorf("subscribe to deliveries: %w", err)
	}
	return h, nil
}

func (h *hold) close() {
	_ = h.sub.Unsubscribe() // errs where the connection is closed
}

// sure tells whether the pin is ours at this moment for sure.
func (h *hold) sure() bool { return h.clock() < time.Duration(h.until.Load()) && h.ended.Load() == nil }

// end makes the session give the hold up. The first reason counts.
func (h *hold) end(reason error) { h.ended.CompareAndSwap(nil, &reason) }

// expired gives the reason why the hold is over, or nil.
func (h *hold) expired() error {
	if reason := h.ended.Load(); reason != nil {
		return *reason
	}
	switch now := h.clock(); {
	case h.until.Load() == 0 && now > h.began+pinnedTTL: // it never began
		return errUnsure
	case h.until.Load() != 0 && now >= time.Duration(h.until.Load()):
		return errUnsure
	default:
		return nil
	}
}

// reply gives the subject for the next pull, and notes when that is sent.
func (h *hold) reply() string {
	h.number++
	h.sent[h.number%mostPulls] = h.clock()
	return h.inbox + "." + strconv.Itoa(h.number)
}

// numberOf reads the pull's number from the subject of its status.
func (h *hold) numberOf(subject string) (int, bool) {
	token, ok := strings.CutPrefix(subject, h.inbox+".")
	if !ok {
		return 0, false
	}
	n, err := strconv.Atoi(token)
	return n, err == nil && n > h.number-mostPulls && n <= h.number
}

// confirm notes that the server has found our pin in force after pull number n was sent.
func (h *hold) confirm(n int) {
	until := h.sent[n%mostPulls] + pinnedTTL - margin
	if int64(until) > h.until.Load() {
		h.until.Store(int64(until))
	}
}

// presume notes that pull n has expired without a message. The server looks at pins only where there is something to
// deliver, so this tells nothing by itself. But if the hold lasts as we hear of it, then it did when the pull came in,
// which was before: so the pull has renewed it.
func (h *hold) presume(n int) {
	if h.sure() {
		h.confirm(n)
	}
}

// overdue gives a pull up that has not said that it expired.
func (h *hold) overdue() {
	if h.left > 0 && h.clock()-h.sent[h.current%mostPulls] > pullExpires+margin {
		h.left = 0
	}
}

// Headers and statuses of what answers pulls, and what some 409s say.
const (
	headerPin         = "Nats-Pin-Id"
	headerStatus      = "Status"
	headerDescription = "Description"

	statusNoMessages = "404"
	statusTimeout    = "408"
	statusConflict   = "409"
	statusWrongPin   = "423"
	statusNoServer   = "503"

	tooLarge  = "Message Size Exceeds MaxBytes"
	completed = "Batch Completed"
	deleted   = "Consumer Deleted"
)

// status takes in the status of a pull. It errs with the reason why the hold is over.
func (h *hold) status(msg *nats.Msg, status string) error {
	n, ok := h.numberOf(msg.Subject)
	if !ok {
		return nil
	}
	over := func() {
		if n == h.current {
			h.left = 0
		}
	}
	switch status {
	case statusNoMessages, statusTimeout:
		h.presume(n)
		over()
		return nil
	case statusWrongPin:
		return errPinLost
	case statusNoServer:
		return errNoServer
	case statusConflict:
	default:
		return fmt.Errorf("%w: status %s %s", errMoved, status, msg.Header.Get(headerDescription))
	}
	switch description := msg.Header.Get(headerDescription); description {
	case completed:
		over()
		return nil
	case tooLarge:
		h.confirm(n)
		h.crowded = h.crowded || n == h.current && h.left == h.asked // else its bytes are spent
		over()
		return nil
	case deleted:
		return errNoServer
	default: // a change of leaders, a shutdown
		return fmt.Errorf("%w: %s", errMoved, description)
	}
}

// admit takes in a delivery. It errs where one before it is missing, or where it is not for this pin.
func (h *hold) admit(msg *nats.Msg) (delivery, error) {
	d, ok := parseDelivery(msg.Reply)
	switch {
	case !ok:
		return delivery{}, fmt.Errorf("%w: reply subject %q", errGap, msg.Reply)
	case msg.Header.Get(headerPin) != h.pin:
		return delivery{}, errPinLost
	case d.consumer != h.expected:
		return delivery{}, fmt.Errorf("%w: number %d came for %d", errGap, d.consumer, h.expected)
	case d.stream <= h.last:
		return delivery{}, fmt.Errorf("%w: sequence %d", errAgain, d.stream)
	}
	h.expected++
	h.last = d.stream
	h.left = max(h.left-1, 0)
	h.spend(msg)
	h.crowded = false
	h.confirm(h.current)
	return d, nil
}

// leastEvent is less than any event takes, in bytes.
const leastEvent = 64

// spend counts the bytes of a delivery as the server does. It says that a pull's bytes do not suffice for the next
// message, but not that they were spent to the last: such a pull just ends.
func (h *hold) spend(msg *nats.Msg) {
	if h.budget == 0 {
		return
	}
	const line, frame = len(headerPin + ": \r\n"), len("NATS/1.0\r\n\r\n")
	size := msg.Size() - line - len(h.pin)
	if len(msg.Header) == 1 {
		size -= frame
	}
	if h.budget = max(h.budget-size, 1); h.budget < leastEvent {
		h.left, h.budget = 0, 0
	}
}
