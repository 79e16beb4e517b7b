package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	firstPause = 20 * time.Millisecond
	mostPause  = time.Second
	lookAgain  = 500 * time.Millisecond

	// A pull for a pin is lost with its server, and nothing tells of it: there is no beat before there is a pin.
	firstExpires = 2 * time.Second
)

// run holds the partition, again and again, until ctx ends; then it lets go of it in good order: what is under way
// ends first, at the latest when the worker's own deadlines have passed.
func (p *partition) run(ctx context.Context) {
	writing, stop := context.WithCancelCause(p.w.settling)
	var ledger sync.WaitGroup
	ledger.Go(func() { p.ledger.Run(writing) })
	defer ledger.Wait()
	defer stop(errStopped)
	log := p.w.log.With("partition", p.number)
	pin, missing := "", true
	pause := firstPause
	for ctx.Err() == nil {
		began := p.w.clock()
		err := p.session(ctx, &pin, missing)
		if ctx.Err() != nil {
			break
		}
		missing = errors.Is(err, errNoServer) || errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound)
		log.Info("partition is to be held anew", "reason", err)
		p.explain(err)
		p.w.metrics.repins.Inc()
		if p.w.clock()-began > mostPause {
			pause = firstPause
		}
		wait(ctx, pause)
		pause = min(2*pause, mostPause)
	}
	// Where the hold was lost on the way out, what is under way ends all the same before this worker may begin anew.
	p.leave()
	for !p.quiet() {
		<-p.wake
	}
}

// session is one hold: from the pin, or from one that may still be ours, to the reason why it ended.
func (p *partition) session(ctx context.Context, pin *string, missing bool) error {
	if missing {
		if err := p.consumer.ensure(ctx); err != nil {
			return err
		}
	}
	fresh := false
	if *pin == "" {
		found, err := p.acquire(ctx)
		if err != nil {
			return err
		}
		*pin = found
		fresh = true
		if ctx.Err() != nil { // it is not wanted any more
			return p.consumer.unpin(context.WithoutCancel(ctx))
		}
	}
	h, err := newHold(p.consumer.nc, *pin, p.w.options.MaxAckPending, p.w.clock)
	if err != nil {
		return err
	}
	defer h.close()
	err = p.keep(ctx, h, fresh)
	if h.until.Load() == 0 || errors.Is(err, errPinLost) || errors.Is(err, errNoServer) {
		*pin = ""
	}
	return err
}

func (p *partition) keep(ctx context.Context, h *hold, fresh bool) error {
	if err := p.beat(h); err != nil {
		return err
	}
	if !fresh { // a reset would disturb whoever has the pin now
		if err := p.probe(ctx, h); err != nil {
			return err
		}
	}
	if err := p.consumer.reset(ctx); err != nil {
		return err
	}
	made, err := p.consumer.made(ctx)
	if err != nil {
		return err
	}
	p.made = made
	if err := p.own(ctx, h); err != nil {
		return err
	}
	// Without the ranges nothing may begin: what waits in one is older than what comes, and of what was settled since the record
	// is kept only for who knows of the range.
	if err := p.openRanges(ctx, h); err != nil {
		return err
	}
	p.start(h)
	defer p.stop()
	defer p.attend(ctx, h)()
	return p.pump(ctx, h)
}

// attend looks after the ranges beside the session, until what it gives is called.
func (p *partition) attend(ctx context.Context, h *hold) (end func()) {
	tending, stopTending := context.WithCancel(ctx)
	storing, stopStoring := context.WithCancel(context.WithoutCancel(ctx)) // what ends with the session is stored too
	var wg sync.WaitGroup
	wg.Go(func() { p.tendRanges(tending, h) })
	wg.Go(func() { p.storeRanges(storing) })
	return func() {
		stopTending()
		stopStoring()
		wg.Wait()
	}
}

// probe waits for the answer to a beat. It errs where the pin is another worker's.
func (p *partition) probe(ctx context.Context, h *hold) error {
	timer := time.NewTimer(beatExpires + askWithin)
	defer timer.Stop()
	select {
	case msg := <-h.messages:
		return h.status(msg, msg.Header.Get(headerStatus))
	case <-timer.C:
		return errUnsure
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// acquire waits for a pin: the first message that a pull without a pin brings has it. The message itself is left to
// the reset.
func (p *partition) acquire(ctx context.Context) (pin string, err error) {
	c := p.consumer
	inbox := c.nc.NewInbox()
	sub, err := c.nc.SubscribeSync(inbox)
	if err != nil {
		return "", fmt.Errorf("subscribe to deliveries: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // errs where the connection is closed
	defer p.setFirst(false)
	for ctx.Err() == nil {
		expires := firstExpires
		holder, pending, err := c.state(ctx)
		p.setFirst(err == nil && holder == "")
		switch {
		case err != nil:
			return "", err
		case holder != "": // the last owner, who may be dead: look again soon
			expires = lookAgain
		case pending:
			// What the last owner had is not delivered for as long as its ack wait lasts, and without a delivery
			// nobody is pinned.
			if err := c.reset(ctx); err != nil {
				return "", err
			}
		}
		if err := c.send(inbox, pull{batch: 1, expires: expires}); err != nil {
			return "", err
		}
		pin, err := awaitPin(ctx, sub, expires)
		if pin != "" || err != nil {
			return pin, err
		}
	}
	return "", context.Cause(ctx)
}

// awaitPin gives the pin of the next message, or none where the pull ends without a message.
func awaitPin(ctx context.Context, sub *nats.Subscription, expires time.Duration) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, expires+time.Second, errMoved)
	defer cancel()
	msg, err := sub.NextMsgWithContext(ctx)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return "", context.Cause(ctx)
	}
	if errors.Is(err, nats.ErrNoResponders) {
		return "", errNoServer
	}
	if err != nil {
		return "", fmt.Errorf("wait for a pin: %w", err)
	}
	if pin := msg.Header.Get(headerPin); pin != "" {
		return pin, nil
	}
	switch status := msg.Header.Get(headerStatus); status {
	case statusTimeout, statusNoMessages:
		return "", nil
	default:
		return "", fmt.Errorf("%w: status %s %s", errMoved, status, msg.Header.Get(headerDescription))
	}
}

// pump keeps the hold and takes in what comes, until the hold is over, or until ctx has ended and what was under way
// has too.
func (p *partition) pump(ctx context.Context, h *hold) error {
	beat, tick := time.NewTicker(beatEvery), time.NewTicker(saveEvery)
	defer beat.Stop()
	defer tick.Stop()
	saved := make(chan struct{}, 1)
	saved <- struct{}{}
	defer func() { <-saved }() // a save that is under way has ended

	done := ctx.Done()
	for {
		if done != nil {
			if err := p.pull(h); err != nil {
				return err
			}
		} else if p.quiet() {
			return p.depart(ctx, h)
		}
		var err error
		select {
		case msg := <-h.messages:
			err = p.receive(ctx, h, msg)
		case <-beat.C:
			if err = h.expired(); err == nil {
				h.overdue()
				p.flushAcks()
				err = p.beat(h)
			}
		case <-tick.C:
			p.tidy(h)
			p.saveBehind(ctx, h, saved)
		case <-p.wake:
			err = h.expired()
		case <-done:
			done = nil
			p.leave()
		}
		if err != nil {
			return err
		}
	}
}

// beat renews the pin, and asks whether it is in force: no message fits into it.
func (p *partition) beat(h *hold) error {
	return p.consumer.send(h.reply(), pull{batch: 1, maxBytes: 1, expires: beatExpires, pin: h.pin})
}

// pull keeps a pull out for as long as there is room.
func (p *partition) pull(h *hold) error {
	if h.left > 0 {
		return nil
	}
	count, room, empty := p.room(h.crowded)
	ask := pull{batch: count, maxBytes: room, expires: pullExpires, pin: h.pin}
	switch {
	case h.crowded && empty: // it is larger than all the room there is
		ask.batch, ask.maxBytes = 1, 0
	case h.crowded, room == 0:
		return nil
	}
	reply := h.reply()
	h.current, h.asked, h.left, h.budget = h.number, ask.batch, ask.batch, ask.maxBytes
	return p.consumer.send(reply, ask)
}

// receive takes in a status, or an event.
func (p *partition) receive(ctx context.Context, h *hold, msg *nats.Msg) error {
	if status := msg.Header.Get(headerStatus); status != "" && len(msg.Data) == 0 {
		return h.status(msg, status)
	}
	d, err := h.admit(msg)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return nil // the next owner resets the consumer
	}
	e, there := p.known(d)
	if !there {
		p.w.metrics.events.Inc()
		e = p.w.read(p, d, msg)
	}
	if e.line != nil && !e.line.loaded {
		if err := p.load(ctx, e.line); err != nil {
			return err
		}
	}
	if !there && !p.past(e) {
		p.w.judge(p, e)
	}
	p.enter(h, e, d, msg.Reply)
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
