package cli

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/deadletter"
)

// requestView is a rendered request as people and scripts read it: without secrets, which it only names.
type requestView struct {
	Type      string   `json:"type"`
	Method    string   `json:"method,omitempty"`
	URL       string   `json:"url,omitempty"`
	Endpoint  string   `json:"endpoint,omitempty"`
	Headers   []string `json:"headers,omitempty"` // Name: value
	Body      any      `json:"body,omitempty"`    // JSON where it is some, else text, else {"base64": …}
	Timeout   string   `json:"timeout"`
	Secrets   []string `json:"signed_with,omitempty"`
	Permanent []int    `json:"permanent,omitempty"`
}

func viewRequest(r *actions.Request) *requestView {
	if r == nil {
		return nil
	}
	view := &requestView{
		Type: r.Type, Method: r.Method, URL: r.URL, Endpoint: r.Endpoint, Body: viewBytes(r.Body), Timeout: r.Timeout.String(),
		Secrets: r.Secrets, Permanent: r.Permanent,
	}
	for _, h := range r.Header {
		view.Headers = append(view.Headers, h.Name+": "+showReferences(h.Value))
	}
	return view
}

// showReferences writes <env:NAME> for the secrets of a header, which stand between control characters.
func showReferences(value string) string {
	parts := strings.Split(value, "\x01")
	for i := 1; i < len(parts); i += 2 {
		parts[i] = "<" + parts[i] + ">"
	}
	return strings.Join(parts, "")
}

func viewBytes(data []byte) any {
	switch {
	case len(data) == 0:
		return nil
	case json.Valid(data):
		return json.RawMessage(data)
	case utf8.Valid(data):
		return string(data)
	default:
		return map[string]string{"base64": base64.StdEncoding.EncodeToString(data)}
	}
}

func printRequest(p *printer, r *actions.Request) {
	if r == nil {
		p.line("Request      none was rendered")
		return
	}
	view := viewRequest(r)
	p.field("Request", strings.TrimSpace(view.Type+" "+view.Method+" "+view.URL))
	for _, header := range view.Headers {
		p.field("", header)
	}
	if len(view.Secrets) > 0 {
		p.field("", "signed with "+strings.Join(view.Secrets, ", "))
	}
	p.field("", "timeout "+view.Timeout)
	printBytes(p, r.Body)
}

// printBytes writes a body: JSON indented, text as it is, other bytes by their number.
func printBytes(p *printer, data []byte) {
	switch {
	case len(data) == 0:
	case utf8.Valid(data):
		p.block(pretty(data))
	default:
		p.line("  %d bytes that are no text; -o json has them in base64", len(data))
	}
}

func printAttempts(p *printer, attempts []deadletter.Attempt) {
	var rows [][]string
	for _, a := range attempts {
		status, took := "", "-"
		if a.Status > 0 {
			status = fmt.Sprint(a.Status)
		}
		if !a.Ended.IsZero() {
			took = a.Ended.Sub(a.Started).Round(time.Millisecond).String()
		}
		outcome := a.Error
		if outcome == "" {
			outcome = "ok"
		}
		number := fmt.Sprint(a.Number)
		if a.Round > 0 {
			number = fmt.Sprintf("%d of retry %d", a.Number, a.Round)
		}
		rows = append(rows, []string{number, stamp(a.Started), took, status, outcome})
	}
	p.table([]column{{title: "ATTEMPT"}, {title: "STARTED"}, {title: "TOOK", right: true}, {title: "STATUS", right: true},
		{title: "OUTCOME", cut: true, tail: true}}, rows)
}
