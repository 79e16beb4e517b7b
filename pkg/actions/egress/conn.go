package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

const (
	// concurrently is the size of a body, in bytes, from which the answer is read while it is written: a receiver may refuse
	// it before it has read it, and what is less fits into the buffers between us.
	concurrently = 32 << 10

	answerHeaders = 64 << 10 // bytes of an answer's status and headers at the most
	mostInterim   = 5        // answers 1xx before the one that counts
)

var (
	errManyHeaders = errors.New("the answer's headers are too long")
	errManyInterim = errors.New("there are too many answers before the answer")
	errShortBody   = errors.New("the request's body is shorter than it says")
	longAgo        = time.Unix(1, 0)
)

// conn is one connection, used by one request at a time.
type conn struct {
	net.Conn
	transport *Transport
	origin    origin
	since     time.Time // it is idle

	raw    net.Conn // the same, or what is below TLS
	silent func() bool
	cut    func() // ends it at once, from any goroutine

	reader *bufio.Reader
	writer *bufio.Writer
	left   int64 // what may be read
}

func newConn(t *Transport, to origin, dialed net.Conn) *conn {
	c := &conn{Conn: dialed, transport: t, origin: to, raw: dialed}
	if secured, ok := dialed.(*tls.Conn); ok {
		c.raw = secured.NetConn()
	}
	raw := c.raw
	c.cut = func() { _ = raw.Close() } // what it was used for is known to have failed, or to have ended
	if socket, ok := raw.(syscall.Conn); ok {
		c.silent = silence(socket)
	}
	c.reader, c.writer = bufio.NewReader(c), bufio.NewWriter(dialed)
	return c
}

// end ends a connection that no request uses, in the order of TLS.
func (c *conn) end() { _ = c.Close() }

// Read reads what the answer may have.
func (c *conn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errManyHeaders
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.Conn.Read(p)
	c.left -= int64(n)
	return n, err
}

// quiet tells whether an idle connection can take a request: the other side has not ended it, and has sent nothing that
// would be taken for the answer.
func (c *conn) quiet() bool {
	if c.Conn != c.raw { // TLS may hold what it has read
		var one [1]byte
		_ = c.raw.SetReadDeadline(longAgo)
		_, err := c.Conn.Read(one[:])
		_ = c.raw.SetReadDeadline(time.Time{})
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
	}
	return c.silent == nil || c.silent()
}

// call is a request under way.
type call struct {
	conn  *conn
	stop  func() bool
	wrote chan error // nil where the request was written before the answer was read
	close bool       // the connection is for no other request
}

// exchange writes a request and reads the answer's headers. The connection is kept or ended with the answer's body.
func (c *conn) exchange(request *http.Request) (*http.Response, error) {
	x := call{conn: c, stop: context.AfterFunc(request.Context(), c.cut)}
	if n := request.ContentLength; n < 0 || n >= concurrently {
		x.wrote = make(chan error, 1)
		go func() { x.wrote <- c.send(request) }()
	} else if err := c.send(request); err != nil {
		x.finish(false)
		return nil, err
	}
	response, err := c.receive(request)
	if err != nil {
		x.finish(false)
		return nil, err
	}
	x.close = request.Close || response.Close || response.StatusCode == http.StatusSwitchingProtocols
	if response.Body == http.NoBody {
		x.finish(true)
		return response, nil
	}
	response.Body = &answerBody{ReadCloser: response.Body, call: x}
	return response, nil
}

func (c *conn) send(request *http.Request) error {
	head, usual := appendHead(c.writer.AvailableBuffer(), request)
	if !usual {
		if err := request.Write(c.writer); err != nil {
			return err
		}
		return c.writer.Flush()
	}
	defer func() { _ = request.Body.Close() }()
	if _, err := c.writer.Write(head); err != nil {
		return err
	}
	switch n, err := io.Copy(c.writer, io.LimitReader(request.Body, request.ContentLength)); {
	case err != nil:
		return err
	case n < request.ContentLength:
		return errShortBody
	}
	return c.writer.Flush()
}

// receive reads the answer's status and headers.
func (c *conn) receive(request *http.Request) (*http.Response, error) {
	c.left = answerHeaders
	for range mostInterim {
		response, err := http.ReadResponse(c.reader, request)
		if err != nil {
			return nil, err
		}
		if status := response.StatusCode; status >= http.StatusOK || status == http.StatusSwitchingProtocols {
			c.left = math.MaxInt64
			return response, nil
		}
	}
	return nil, errManyInterim
}

// finish keeps the connection for other requests, where this one has gone well to its end, or ends it.
func (x *call) finish(whole bool) {
	c := x.conn
	keep := x.stop() && whole && !x.close && c.reader.Buffered() == 0
	if x.wrote != nil && keep {
		select {
		case err := <-x.wrote:
			keep = err == nil
			x.wrote = nil
		default: // it was answered before it was read
			keep = false
		}
	}
	if keep {
		c.transport.keep(c)
		return
	}
	c.cut()
	if x.wrote != nil {
		<-x.wrote
	}
}

// answerBody is what finishes the call.
type answerBody struct {
	io.ReadCloser
	call     call
	finished bool
}

func (b *answerBody) Read(p []byte) (int, error) {
	if b.finished {
		return 0, io.EOF
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.finish(errors.Is(err, io.EOF))
	}
	return n, err
}

// Close leaves what was not read, and ends the connection then.
func (b *answerBody) Close() error {
	b.finish(false)
	return nil
}

func (b *answerBody) finish(whole bool) {
	if !b.finished {
		b.finished = true
		b.call.finish(whole)
	}
}
