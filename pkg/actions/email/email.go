// Package email is the action that sends a mail by SMTP.
//
// The server's URL is a secret, read at each sending: smtp://user:password@host:587 demands STARTTLS, smtps://…:465 is TLS
// from the first byte, smtp+plain://host:25 is for a relay that has none, and takes no password. The Message-ID is made of the
// effect key, so that a mail whose answer was lost is sent again as the same one. No error holds an address, a word of
// the mail, or of what the server says more than its codes.
package email

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/egress"
	"github.com/tributary-dev/tributary/pkg/actions/secret"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// Type is the type of requests that this package does.
const Type = "email"

const (
	headerEffect   = "Tributary-Effect"
	defaultTimeout = 10 * time.Second

	// slack keeps the connection's own deadline behind that of the attempt, which says better why it ended.
	slack = time.Second
)

// letter is the body of a request.
type letter struct {
	From    string   `json:"from"`
	To      []string `json:"to"`
	Subject string   `json:"subject"`
	Text    string   `json:"text"`
}

// Options of an Email. The zero value works.
type Options struct {
	TLS *egress.TLS // nil for the system's roots, and no certificate of ours
}

// Email is the action. It is safe for concurrent use.
type Email struct {
	dialer  *egress.Dialer
	secrets *secret.Resolver
	o       Options
}

// New makes the action; dialer is egress.NewDialer's.
func New(dialer *egress.Dialer, secrets *secret.Resolver, o Options) *Email {
	return &Email{dialer: dialer, secrets: secrets, o: o}
}

// Do sends the mail in request.Body through the server whose URL the reference in request.URL names. A mail that can't be composed
// and one that the server refuses with 5xx are permanent, and so is an address that may not be connected to; everything
// else may be tried again, a wrong URL or login too, since these are mended elsewhere.
func (e *Email) Do(ctx context.Context, effect actions.Effect, request actions.Request) (actions.Outcome, error) {
	msg, err := compose(effect, request.Body)
	if err != nil {
		return actions.Outcome{}, retry.Permanent(err)
	}
	s, err := e.server(request.URL)
	if err != nil {
		return actions.Outcome{}, err
	}
	status, err := e.send(ctx, s, msg)
	switch {
	case err == nil || retry.IsPermanent(err):
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("not sent within %s: %w", request.Timeout, context.DeadlineExceeded)
	case ctx.Err() != nil:
		err = fmt.Errorf("interrupted: %w", context.Cause(ctx))
	}
	if err != nil {
		return actions.Outcome{Status: status}, fmt.Errorf("mail by %s: %w", request.URL, err)
	}
	return actions.Outcome{Status: status}, nil
}

// compose makes the mail. Its errors do not quote it.
func compose(effect actions.Effect, body []byte) (*gomail.Msg, error) {
	var l letter
	if err := json.Unmarshal(body, &l); err != nil {
		return nil, errors.New("the request holds no mail")
	}
	if strings.ContainsFunc(l.Subject+l.From+strings.Join(l.To, ""), func(r rune) bool { return r < ' ' || r == 0x7F }) {
		return nil, errors.New("a header of the mail holds a control character")
	}
	from, err := mail.ParseAddress(l.From)
	if err != nil {
		return nil, errors.New("from is no address")
	}
	if len(l.To) == 0 {
		return nil, errors.New("the mail has no receiver")
	}
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	msg.FromMailAddress(from)
	for i, text := range l.To {
		to, err := mail.ParseAddress(text)
		if err != nil {
			return nil, fmt.Errorf("receiver %d is no address", i+1)
		}
		msg.AddToMailAddress(to)
	}
	sum := sha256.Sum256([]byte(effect.Key))
	_, domain, _ := strings.Cut(from.Address, "@")
	msg.SetMessageIDWithValue(hex.EncodeToString(sum[:16]) + "@" + domain)
	msg.SetDate()
	msg.Subject(l.Subject)
	msg.SetGenHeader(headerEffect, effect.Key)
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no out-of-office answers
	msg.SetBodyString(gomail.TypeTextPlain, l.Text)
	return msg, nil
}

// server is what a URL says.
type server struct {
	host     string
	port     int
	scheme   string
	user     string
	password string
}

// The schemes of a server's URL, and their ports.
const (
	schemeStartTLS = "smtp"
	schemeTLS      = "smtps"
	schemePlain    = "smtp+plain"
)

var ports = map[string]int{schemeStartTLS: 587, schemeTLS: 465, schemePlain: 25}

func (e *Email) server(reference string) (server, error) {
	text, err := e.secrets.Resolve(reference)
	if err != nil {
		return server{}, err
	}
	unusable := fmt.Errorf("secret %s is not smtp://…, smtps://… or smtp+plain://… of a server", reference) // the parser's error quotes it
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || u.Hostname() == "" || ports[u.Scheme] == 0 {
		return server{}, unusable
	}
	s := server{host: u.Hostname(), port: ports[u.Scheme], scheme: u.Scheme, user: u.User.Username()}
	s.password, _ = u.User.Password()
	if u.Port() != "" {
		if s.port, err = strconv.Atoi(u.Port()); err != nil {
			return server{}, unusable
		}
	}
	if s.scheme == schemePlain && s.user != "" {
		return server{}, fmt.Errorf("secret %s holds a password that would be sent without TLS", reference)
	}
	return s, nil
}

// send hands the mail over, on a connection of its own. What happens behind the server's answer to the mail does not count.
func (e *Email) send(ctx context.Context, s server, msg *gomail.Msg) (status int, err error) {
	var conn net.Conn // the one that dial made
	defer func() {
		if conn != nil {
			_ = conn.Close() // it is left, whatever it says
		}
	}()
	stop := func() bool { return true }
	defer func() { stop() }()
	dial := func(within context.Context, network, address string) (net.Conn, error) {
		made, err := e.dial(within, s, network, address)
		if err != nil {
			return nil, err
		}
		conn, stop = made, context.AfterFunc(ctx, func() { _ = made.SetDeadline(time.Unix(1, 0)) }) // ends what waits
		return made, nil
	}
	client, err := gomail.NewClient(s.host, e.options(ctx, s, dial)...)
	if err != nil {
		return 0, errors.New("the settings of the server can't be used")
	}
	session, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return unconnected(err)
	}
	if err := client.SendWithSMTPClient(session, msg); err != nil {
		return judge(err)
	}
	_ = session.Quit() // the mail is taken
	return 250, nil
}

func (e *Email) options(ctx context.Context, s server, dial gomail.DialContextFunc) []gomail.Option {
	timeout := defaultTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline), 0) + slack
	}
	policy := gomail.NoTLS
	if s.scheme == schemeStartTLS {
		policy = gomail.TLSMandatory
	}
	list := []gomail.Option{
		gomail.WithPort(s.port), gomail.WithTimeout(timeout), gomail.WithDialContextFunc(dial), gomail.WithTLSPolicy(policy),
		gomail.WithTLSConfig(e.tls(s)), gomail.WithoutNoop(), gomail.WithoutRset(),
	}
	if s.user != "" {
		list = append(list, gomail.WithSMTPAuth(gomail.SMTPAuthPlain), gomail.WithUsername(s.user), gomail.WithPassword(s.password))
	}
	return list
}

func (e *Email) tls(s server) *tls.Config {
	return e.o.TLS.Config(s.host, strconv.Itoa(s.port))
}

// dial connects where the deployment's rules allow it.
func (e *Email) dial(ctx context.Context, s server, network, address string) (net.Conn, error) {
	conn, err := e.dialer.DialContext(ctx, network, address)
	if err != nil || s.scheme != schemeTLS {
		return conn, err
	}
	secured := tls.Client(conn, e.tls(s))
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close() // it was never used
		return nil, err
	}
	return secured, nil
}

// unconnected says why there is no session. Only a refused address is permanent.
func unconnected(err error) (int, error) {
	if refused, ok := errors.AsType[*egress.RefusedError](err); ok && retry.IsPermanent(err) {
		return 0, retry.Permanent(refused)
	}
	if answer, ok := errors.AsType[*textproto.Error](err); ok {
		return answer.Code, fmt.Errorf("connect: the server answered %d", answer.Code)
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return 0, fmt.Errorf("connect: %w", op)
	}
	if bad, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return 0, fmt.Errorf("connect: %w", bad)
	}
	return 0, errors.New("connect: no session: the server speaks no SMTP, not the TLS that is demanded, or refuses the login")
}

// judge reads the answer to a mail.
func judge(err error) (int, error) {
	failed, ok := errors.AsType[*gomail.SendError](err)
	if !ok || failed.ErrorCode() == 0 {
		return 0, errors.New("the connection broke, or the mail could not be written")
	}
	code := failed.ErrorCode()
	said := fmt.Errorf("the server answered %d", code)
	if enhanced := failed.EnhancedStatusCode(); enhanced != "" {
		said = fmt.Errorf("the server answered %d (%s)", code, enhanced)
	}
	if code >= 500 && code <= 599 {
		return code, retry.Permanent(said)
	}
	return code, said
}
