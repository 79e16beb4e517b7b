package expr_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/observers/expr"
)

func TestTexts(t *testing.T) {
	const data = `{"after":{"id":42,"name":"${after.id} $${x}","dotted":"a.b > c","total":19.90,"whole":20.0,"paid":true,"max":18446744073709551615}}`
	tests := map[string]struct {
		kind       expr.Kind
		text, want string
	}{
		"no placeholder":                     {expr.Plain, "shipped", "shipped"},
		"nothing":                            {expr.Plain, "", ""},
		"an integer":                         {expr.Plain, "order ${after.id}!", "order 42!"},
		"a decimal, digit for digit":         {expr.Plain, "${after.total} ${after.whole}", "19.90 20.0"},
		"a large integer":                    {expr.Plain, "${after.max}", "18446744073709551615"},
		"a bool":                             {expr.Plain, "${after.paid}", "true"},
		"two beside each other":              {expr.Plain, "${after.id}${after.id}", "4242"},
		"a value is not read again":          {expr.Plain, "<${after.name}>", "<${after.id} $${x}>"},
		"an escaped placeholder":             {expr.Plain, "$${after.id} $$ $ $", "${after.id} $$ $ $"},
		"braces in an expression":            {expr.Plain, `${{"a": after.id}["a"]}`, "42"},
		"a brace in a string":                {expr.Plain, `${"}" + '}' + "\"}" + r"\" + """}"""}x`, `}}"}\}x`},
		"a comment in an expression":         {expr.Plain, "${after.id // } \n}x", "42x"},
		"an expression with blanks":          {expr.Plain, "${ after.id }", "42"},
		"a token of a subject":               {expr.Subject, "orders.${after.dotted}.x", "orders.a%2Eb%20%3E%20c.x"},
		"a header keeps tabs and characters": {expr.Header, "a\t${after.dotted} é", "a\ta.b > c é"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			text, err := environment(t).CompileText(test.text, test.kind)
			if err != nil {
				t.Fatal(err)
			}
			got, err := text.Render(input("insert", data))
			if err != nil || got != test.want {
				t.Errorf("%s became %q, %v, want %q", test.text, got, err, test.want)
			}
		})
	}
}

func TestTextsThatFail(t *testing.T) {
	const data = `{"after":{"id":42,"note":null,"list":[1],"lines":"a\r\nX-Admin: 1","nul":"a\u0000","del":"\u007f"}}`
	tests := map[string]struct {
		kind       expr.Kind
		text, want string
	}{
		"a missing field":          {expr.Plain, "${after.colour}", "${after.colour}: no such key: colour"},
		"null":                     {expr.Plain, "${after.note}", "${after.note}: a text takes a string, a number or a bool, this event gave a null_type"},
		"no old row":               {expr.Plain, "${before}", "${before}: a text takes a string, a number or a bool, this event gave a null_type"},
		"a list":                   {expr.Plain, "${after.list}", "${after.list}: a text takes a string, a number or a bool, this event gave a list"},
		"a line break in a header": {expr.Header, "x ${after.lines}", `${after.lines}: a header can't hold the character '\r'`},
		"a NUL in a header":        {expr.Header, "${after.nul}", `${after.nul}: a header can't hold the character '\x00'`},
		"a DEL in a header":        {expr.Header, "${after.del}", `${after.del}: a header can't hold the character '\x7f'`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			text, err := environment(t).CompileText(test.text, test.kind)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := text.Render(input("insert", data)); err == nil || err.Error() != test.want {
				t.Errorf("%s became %q, %v, want the error %s", test.text, got, err, test.want)
			}
		})
	}
}

func TestTextIsBounded(t *testing.T) {
	in := input("insert", `{"after":{"text":"`+strings.Repeat("x", expr.MaxResult/2)+`"}}`)
	env := environment(t)
	text, err := env.CompileText("${after.text}${after.text}!", expr.Plain)
	if err != nil {
		t.Fatal(err)
	}
	long, err := env.CompileURL("http://a.example/${after.text}/${after.text}")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := text.Render(in); err == nil || !errors.Is(err, expr.ErrTooLarge) {
		t.Errorf("a text over the limit gave %v", err)
	}
	if _, err := long.Render(in); err == nil || !errors.Is(err, expr.ErrTooLarge) {
		t.Errorf("a URL over the limit gave %v", err)
	}
}

func TestURLs(t *testing.T) {
	const data = `{"after":{"id":42,"name":"a/b?c#d&e=f %2F é","up":"..","dot":".","empty":""}}`
	tests := map[string]struct{ text, want, endpoint string }{
		"a literal":                          {"https://a.example/hook", "https://a.example/hook", "https://a.example:443"},
		"no path":                            {"http://a.example", "http://a.example", "http://a.example:80"},
		"a port":                             {"http://A.example:8080/x", "http://A.example:8080/x", "http://a.example:8080"},
		"an IPv6 address":                    {"http://[::1]:9/x", "http://[::1]:9/x", "http://[::1]:9"},
		"an IPv6 address without a port":     {"https://[2001:DB8::1]/", "https://[2001:DB8::1]/", "https://[2001:db8::1]:443"},
		"a segment":                          {"https://a.example/o/${after.id}/x", "https://a.example/o/42/x", "https://a.example:443"},
		"a value can't leave its segment":    {"https://a.example/${after.name}", "https://a.example/a%2Fb%3Fc%23d%26e%3Df%20%252F%20%C3%A9", "https://a.example:443"},
		"a value can't leave its query":      {"https://a.example/?q=${after.name}&r=1", "https://a.example/?q=a%2Fb%3Fc%23d%26e%3Df%20%252F%20%C3%A9&r=1", "https://a.example:443"},
		"a query without a path":             {"https://a.example?q=${after.id}", "https://a.example?q=42", "https://a.example:443"},
		"a part of a segment":                {"https://a.example/o-${after.id}.json?x", "https://a.example/o-42.json?x", "https://a.example:443"},
		"dots beside other characters":       {"https://a.example/${after.dot}${after.dot}.", "https://a.example/...", "https://a.example:443"},
		"dots and nothing in a query":        {"https://a.example/x?p=${after.up}&q=${after.empty}/../", "https://a.example/x?p=..&q=/../", "https://a.example:443"},
		"an empty value beside a literal":    {"https://a.example/x${after.empty}/y", "https://a.example/x/y", "https://a.example:443"},
		"literal segments may be empty":      {"https://a.example//x/", "https://a.example//x/", "https://a.example:443"},
		"a question mark in the query stays": {"https://a.example/?a=b?c/d", "https://a.example/?a=b?c/d", "https://a.example:443"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			u, err := environment(t).CompileURL(test.text)
			if err != nil {
				t.Fatal(err)
			}
			got, err := u.Render(input("insert", data))
			if err != nil || got != test.want {
				t.Errorf("%s became %q, %v, want %q", test.text, got, err, test.want)
			}
			if u.Endpoint() != test.endpoint {
				t.Errorf("endpoint is %s, want %s", u.Endpoint(), test.endpoint)
			}
		})
	}
}

func TestURLsThatFail(t *testing.T) {
	const data = `{"after":{"up":"..","dot":".","empty":"","note":null}}`
	tests := map[string]struct{ text, want string }{
		"a step up":                      {"https://a.example/o/${after.up}/x", `a path segment can't be ".."`},
		"a step up at the end":           {"https://a.example/o/${after.up}", `a path segment can't be ".."`},
		"a step up before the query":     {"https://a.example/o/${after.up}?x", `a path segment can't be ".."`},
		"a step up of two values":        {"https://a.example/${after.dot}${after.dot}/x", `a path segment can't be ".."`},
		"a step up of value and literal": {"https://a.example/.${after.dot}/x", `a path segment can't be ".."`},
		"an encoded step up":             {"https://a.example/%2e${after.dot}/x", `a path segment can't be "%2e."`},
		"no step":                        {"https://a.example/${after.dot}/x", `a path segment can't be "."`},
		"nothing":                        {"https://a.example/o/${after.empty}", `a path segment can't be ""`},
		"two times nothing":              {"https://a.example/o/${after.empty}${after.empty}/x", `a path segment can't be ""`},
		"null":                           {"https://a.example/o?x=${after.note}", "${after.note}: a text takes a string, a number or a bool, this event gave a null_type"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			u, err := environment(t).CompileURL(test.text)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := u.Render(input("insert", data)); err == nil || err.Error() != test.want {
				t.Errorf("%s became %q, %v, want the error %s", test.text, got, err, test.want)
			}
		})
	}
}

func TestURLsThatDoNotCompile(t *testing.T) {
	const inOrigin = "${} can't stand in a URL's scheme, host or port"
	tests := map[string]struct{ text, at, want string }{
		"nothing":                     {"", "", "the URL is empty"},
		"another scheme":              {"ftp://a.example/", "ftp", `a URL begins with http:// or https://, got "ftp://a.example"`},
		"a path alone":                {"/hook", "/hook", `a URL begins with http:// or https://, got "/hook"`},
		"no host":                     {"https:///x", "https", `the URL's host "" is not a name or an address`},
		"a value as scheme":           {"${op}://a.example/", "${op}", inOrigin},
		"a value as host":             {"https://${op}/x", "${op}", inOrigin},
		"a value in the host":         {"https://a.${op}.example/x", "${op}", inOrigin},
		"a value behind the host":     {"https://a.example${op}", "${op}", inOrigin},
		"a value as port":             {"https://a.example:${op}/", "${op}", inOrigin},
		"a user":                      {"https://u:p@a.example/", "https", "a URL can't hold a user or a password"},
		"a port out of range":         {"https://a.example:70000/", "https", "the URL's port is from 1 to 65535, got 70000"},
		"a port of letters":           {"https://a.example:http/", "https", `the URL "https://a.example:http" is invalid: invalid port ":http" after host`},
		"a host of other letters":     {"https://ä.example/", "https", `the URL's host "ä.example" is not a name or an address`},
		"a backslash":                 {`https://a.example/\x`, `\x`, "a URL can't hold this character"},
		"a backslash behind the host": {`https://a.example\@b.example/x`, "https", "a URL can't hold a user or a password"},
		"a blank":                     {"https://a.example/a b", " b", "a URL can't hold this character"},
		"a fragment":                  {"https://a.example/#x", "#x", "a URL's fragment is never sent"},
		"half an escape":              {"https://a.example/%2${op}", "%2", "% is not followed by two hex digits"},
		"a step up":                   {"https://a.example/a/../b", "../b", `the path holds the segment ".."`},
		"an encoded step up":          {"https://a.example/a/%2E./b", "%2E./b", `the path holds the segment "%2E."`},
		"an error in an expression":   {"https://a.example/${aftr}", "aftr", "undeclared reference to 'aftr' (did you mean 'after'?)"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := environment(t).CompileURL(test.text)
			var located *expr.Error
			if !errors.As(err, &located) {
				t.Fatalf("error is %v, want %s", err, test.want)
			}
			if located.Message != test.want || !strings.HasPrefix(test.text[located.Offset:], test.at) {
				t.Errorf("error is %s at %q, want %s at %q", located.Message, test.text[located.Offset:], test.want, test.at)
			}
		})
	}
}

// FuzzHostileValues renders one value everywhere, and asks the parsers of those who receive it whether it stayed where
// it was put.
func FuzzHostileValues(f *testing.F) {
	for _, seed := range []string{
		"plain", `"},{"x":"`, "../../admin", "..", ".", "", "a/b?c=d&e#f", "x\r\nX-Admin: 1", "\x00", "${after.id}", "%2e%2e", "%00",
		"é😀\u2028", "\xff\xfe", "a;b", `\`, "user@host", ":80", "a.b.*.>", "</script>", "env:HOME",
	} {
		f.Add(seed)
	}
	env, err := expr.NewEnv()
	if err != nil {
		f.Fatal(err)
	}
	body, err := env.CompileJSON(`{"first": 1, "value": after.value, "last": [after.value]}`)
	if err != nil {
		f.Fatal(err)
	}
	link, err := env.CompileURL("https://a.example:8443/pre/${after.value}/post?a=${after.value}&${after.value}=b")
	if err != nil {
		f.Fatal(err)
	}
	header, err := env.CompileText("v=${after.value}", expr.Header)
	if err != nil {
		f.Fatal(err)
	}
	subject, err := env.CompileText("a.${after.value}.b", expr.Subject)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, hostile string) {
		quoted, err := json.Marshal(hostile)
		if err != nil {
			t.Fatal(err)
		}
		var value string // as it is in JSON: always UTF-8
		if err := json.Unmarshal(quoted, &value); err != nil {
			t.Fatal(err)
		}
		in := input("insert", `{"after":{"id":1,"value":`+string(quoted)+`}}`)
		checkBody(t, body, in, value)
		checkURL(t, link, in, value)
		checkHeader(t, header, in, value)
		got, err := subject.Render(in)
		if err != nil {
			t.Fatal(err)
		}
		tokens := strings.Split(got, ".")
		if back, ok := events.UnescapeToken(tokens[1]); len(tokens) != 3 || !ok || back != value {
			t.Errorf("subject %q does not hold %q", got, value)
		}
	})
}

func checkBody(t *testing.T, body *expr.JSON, in *expr.Input, value string) {
	t.Helper()
	got, err := body.Append(nil, in)
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]any
	if err := json.Unmarshal(got, &back); err != nil || len(back) != 3 || back["value"] != value || back["first"] != 1.0 {
		t.Errorf("body %s does not hold %q (%v)", got, value, err)
	}
}

func checkURL(t *testing.T, link *expr.URL, in *expr.Input, value string) {
	t.Helper()
	got, err := link.Render(in)
	if value == "" || value == "." || value == ".." {
		if err == nil {
			t.Errorf("%q was taken as a path segment: %s", value, got)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(got)
	if err != nil {
		t.Fatalf("url %q: %v", got, err)
	}
	if u.Host != "a.example:8443" || u.Scheme != "https" || u.User != nil || u.Fragment != "" {
		t.Errorf("url %q leads to %s", got, u.Host)
	}
	if u.Path != "/pre/"+value+"/post" || strings.Count(u.EscapedPath(), "/") != 3 {
		t.Errorf("url %q has the path %q", got, u.Path)
	}
	if clean, err := url.Parse("https://b.example/"); err != nil || clean.ResolveReference(u).EscapedPath() != u.EscapedPath() {
		t.Errorf("url %q has the path %q when it is resolved", got, clean.ResolveReference(u).EscapedPath())
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		t.Fatal(err)
	}
	if value == "a" {
		if len(query) != 1 || len(query["a"]) != 2 {
			t.Errorf("query of %q is %v", got, query)
		}
	} else if len(query) != 2 || query.Get("a") != value || query.Get(value) != "b" {
		t.Errorf("query of %q is %v", got, query)
	}
}

func checkHeader(t *testing.T, header *expr.Text, in *expr.Input, value string) {
	t.Helper()
	got, err := header.Render(in)
	if strings.ContainsAny(value, "\r\n\x00") && err == nil {
		t.Errorf("%q was taken as a header", value)
	}
	if err != nil {
		return
	}
	request, err := http.NewRequest(http.MethodGet, "http://a.example/", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Value", got)
	var wire strings.Builder
	if err := request.Write(&wire); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(wire.String(), "\r\n")
	if len(lines) != 6 || strings.Trim(got, " \t") != strings.TrimPrefix(lines[3], "X-Value: ") {
		t.Errorf("header %q was sent as %q", got, wire.String())
	}
}
