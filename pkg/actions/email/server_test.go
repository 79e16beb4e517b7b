package email_test

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/mail"
	"net/textproto"
	"strings"
	"sync"
	"testing"
)

// smtpServer is a server of SMTP as far as the tests need one. What becomes of a mail hangs on its receiver: refuses@,
// fails@ and hangs@ do as they say.
type smtpServer struct {
	address string
	tls     *tls.Config // nil for none

	mu    sync.Mutex
	mails []*mail.Message // guarded by mu
	raw   []string        // guarded by mu
	auth  []string        // guarded by mu
}

func startSMTP(t *testing.T, config *tls.Config) *smtpServer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &smtpServer{address: listener.Addr().String(), tls: config}
	ended := make(chan struct{})
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { s.serve(conn, ended) })
		}
	})
	t.Cleanup(func() {
		close(ended)
		_ = listener.Close()
		serving.Wait()
	})
	return s
}

func (s *smtpServer) serve(conn net.Conn, ended <-chan struct{}) {
	defer func() { _ = conn.Close() }()
	text := textproto.NewConn(conn)
	say := func(line string) { _ = text.PrintfLine("%s", line) }
	say("220 test ready")
	for {
		line, err := text.ReadLine()
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		_, secured := conn.(*tls.Conn)
		switch verb {
		case "EHLO":
			say("250-test")
			if s.tls != nil && !secured {
				say("250-STARTTLS")
			}
			say("250 AUTH PLAIN")
		case "STARTTLS":
			say("220 go on")
			conn = tls.Server(conn, s.tls)
			text = textproto.NewConn(conn)
		case "AUTH":
			s.mu.Lock()
			s.auth = append(s.auth, line)
			s.mu.Unlock()
			say("235 welcome")
		case "RCPT":
			switch {
			case strings.Contains(line, "refuses@"):
				say("550 5.1.1 <refuses@b.example> is not known here: " + line)
			case strings.Contains(line, "fails@"):
				say("451 4.3.0 later: " + line)
			case strings.Contains(line, "hangs@"):
				<-ended
				return
			default:
				say("250 fine")
			}
		case "DATA":
			say("354 go on")
			data, err := text.ReadDotBytes()
			if err != nil {
				return
			}
			s.take(data)
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 fine")
		}
	}
}

func (s *smtpServer) take(data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw = append(s.raw, string(data))
	if m, err := mail.ReadMessage(bytes.NewReader(data)); err == nil {
		s.mails = append(s.mails, m)
	}
}

func (s *smtpServer) got() (mails []*mail.Message, raw, auth []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mails, s.raw, s.auth
}
