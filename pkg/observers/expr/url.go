package expr

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/tributary-dev/tributary/pkg/actions"
)

// URL is a text that is an absolute http or https URL. Its scheme, host and port are literal. A value in its path is
// part of one segment, one in its query part of one name or value, whatever it holds.
type URL struct {
	origin   string // scheme://host[:port], as it was written
	endpoint string
	path     [][]part // by segment, each behind a slash
	query    []part   // nil where there is no query, else all behind its question mark
}

const urlHint = "write https://host/path; ${expression} may stand in the path and in the query"

// CompileURL compiles a URL; it errors with *Error.
func (e *Env) CompileURL(text string) (*URL, error) {
	parts, err := e.parts(text)
	if err != nil {
		return nil, err
	}
	origin, rest, err := cutOrigin(parts)
	if err != nil {
		return nil, err
	}
	u := &URL{origin: origin}
	if strings.Contains(origin, "@") {
		return nil, &Error{Message: "a URL can't hold a user or a password", Hint: "send them in a header, from env:NAME or file:PATH", Secret: true}
	}
	if u.endpoint, err = endpointOf(origin); err != nil {
		return nil, &Error{Message: err.Error(), Hint: urlHint}
	}
	for _, p := range rest {
		if err := checkLiteral(p); err != nil {
			return nil, err
		}
		u.add(p)
	}
	for _, segment := range u.path {
		literal, ok := (&Text{parts: segment}).Literal()
		if ok && dots(literal) {
			return nil, &Error{Offset: segment[0].offset, Message: fmt.Sprintf("the path holds the segment %q", literal), Hint: "write the path without it"}
		}
	}
	return u, nil
}

// Endpoint is scheme://host:port, always with the port.
func (u *URL) Endpoint() string { return u.endpoint }

// Render gives the URL for one event. It errors where an evaluation fails, where a value would leave its path segment
// (one that is empty, or . or ..), or with ErrTooLarge.
func (u *URL) Render(in *Input) (string, error) {
	dst := append(make([]byte, 0, 256), u.origin...)
	var err error
	for _, segment := range u.path {
		dst = append(dst, '/')
		start := len(dst)
		if dst, err = appendEscaped(dst, segment, in); err != nil {
			return "", err
		}
		if _, literal := (&Text{parts: segment}).Literal(); literal {
			continue
		}
		if rendered := string(dst[start:]); rendered == "" || dots(rendered) {
			return "", fmt.Errorf("a path segment can't be %q", rendered)
		}
	}
	if u.query == nil {
		return string(dst), nil
	}
	if dst, err = appendEscaped(append(dst, '?'), u.query, in); err != nil {
		return "", err
	}
	return string(dst), nil
}

// appendEscaped appends parts, of values all but the unreserved characters of RFC 3986 as %XX.
func appendEscaped(dst []byte, parts []part, in *Input) ([]byte, error) {
	const digits = "0123456789ABCDEF"
	for _, p := range parts {
		if p.program == nil {
			dst = append(dst, p.literal...)
			continue
		}
		value, err := p.value(in)
		if err != nil {
			return nil, err
		}
		for i := range len(value) {
			if c := value[i]; unreserved(c) {
				dst = append(dst, c)
			} else {
				dst = append(dst, '%', digits[c>>4], digits[c&0xF])
			}
		}
		if len(dst) > MaxResult {
			return nil, ErrTooLarge
		}
	}
	return dst, nil
}

// add puts a part behind what is there: into the query once it has begun, else into the path, cut at its slashes.
func (u *URL) add(p part) {
	if u.query != nil {
		u.query = append(u.query, p)
		return
	}
	if p.program != nil {
		last := len(u.path) - 1
		u.path[last] = append(u.path[last], p)
		return
	}
	path, query, found := strings.Cut(p.literal, "?")
	offset := p.offset
	for i, piece := range strings.Split(path, "/") {
		if i > 0 {
			u.path = append(u.path, nil)
		}
		if last := len(u.path) - 1; piece != "" {
			u.path[last] = append(u.path[last], part{literal: piece, offset: offset})
		}
		offset += len(piece) + 1
	}
	if found {
		u.query = append(make([]part, 0, 4), part{literal: query, offset: offset})
	}
}

// cutOrigin cuts scheme://host[:port] off the first part: a placeholder there is an error. What is left begins with a
// slash or a question mark, or is nothing.
func cutOrigin(parts []part) (origin string, rest []part, err error) {
	if len(parts) == 0 {
		return "", nil, &Error{Message: "the URL is empty", Hint: urlHint}
	}
	first := parts[0]
	size := -1
	if i := strings.Index(first.literal, "://"); i >= 0 {
		if j := strings.IndexAny(first.literal[i+3:], "/?#"); j >= 0 {
			size = i + 3 + j
		}
	}
	switch {
	case size < 0 && len(parts) == 1 && first.program == nil:
		return first.literal, nil, nil
	case size < 0:
		at := first.offset
		if first.program == nil {
			at = parts[1].offset
		}
		return "", nil, &Error{Offset: at - len("${"), Message: "${} can't stand in a URL's scheme, host or port", Hint: urlHint}
	default:
		behind := part{literal: first.literal[size:], offset: first.offset + size}
		return first.literal[:size], append([]part{behind}, parts[1:]...), nil
	}
}

// endpointOf checks an origin, and gives it in lower case with its port.
func endpointOf(origin string) (string, error) {
	u, err := url.Parse(origin)
	if err != nil {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return "", fmt.Errorf("the URL %q is invalid: %w", origin, err)
	}
	switch host := u.Hostname(); {
	case u.Scheme != "http" && u.Scheme != "https":
		return "", fmt.Errorf("a URL begins with http:// or https://, got %q", origin)
	case !validHost(host):
		return "", fmt.Errorf("the URL's host %q is not a name or an address", host)
	case u.Port() != "":
		if n, err := strconv.Atoi(u.Port()); err != nil || n < 1 || n > 65535 {
			return "", fmt.Errorf("the URL's port is from 1 to 65535, got %s", u.Port())
		}
	}
	endpoint, _ := actions.EndpointOf(u) // each of these schemes has a port
	return endpoint, nil
}

func validHost(host string) bool {
	if strings.Contains(host, ":") {
		address, err := netip.ParseAddr(host)
		return err == nil && address.Zone() == ""
	}
	for i := range len(host) {
		if c := host[i]; !unreserved(c) || c == '~' {
			return false
		}
	}
	return host != "" && host[0] != '.'
}

// checkLiteral refuses what no URL holds, or what would change the meaning of a value beside it.
func checkLiteral(p part) error {
	for i := 0; i < len(p.literal); i++ {
		c := p.literal[i]
		switch {
		case c == '#':
			return &Error{Offset: p.offset + i, Message: "a URL's fragment is never sent", Hint: "leave it out, or write %23"}
		case c <= ' ' || c >= 0x7F || strings.IndexByte("\"<>\\^`{|}", c) >= 0:
			return &Error{Offset: p.offset + i, Message: "a URL can't hold this character", Hint: "write it percent-encoded"}
		case c == '%':
			if i+2 >= len(p.literal) || !isHex(p.literal[i+1]) || !isHex(p.literal[i+2]) {
				return &Error{Offset: p.offset + i, Message: "% is not followed by two hex digits", Hint: "write %25 for a percent sign"}
			}
		}
	}
	return nil
}

// dots tells whether a path segment means a step up or none.
func dots(segment string) bool {
	plain, err := url.PathUnescape(segment)
	return err == nil && (plain == "." || plain == "..")
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}
