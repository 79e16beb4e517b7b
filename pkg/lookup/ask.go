package lookup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"unicode/utf8"

	"github.com/tributary-dev/tributary/pkg/actions/egress"
	"github.com/tributary-dev/tributary/pkg/observers"
	"github.com/tributary-dev/tributary/pkg/retry"
)

var errNoJSON = errors.New("the answer is no JSON")

// get sends one GET. 2xx with JSON is an answer, 204, 404 and 410 say that there is none, 400 and 422 that no other attempt
// would help; everything else may pass.
func (l *Lookups) get(ctx context.Context, q observers.Lookup) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, q.URL, nil)
	if err != nil {
		return nil, retry.Permanent(errors.New("the URL can't be used")) // the error of net/http quotes it
	}
	req.Header.Set("Accept", "application/json")
	for _, h := range q.Header {
		value, err := l.secrets.Expand(h.Value)
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", h.Name, err)
		}
		req.Header.Set(h.Name, value)
	}
	req.Header.Set("User-Agent", "Tributary/"+l.o.Version)
	place := "GET " + (&url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host}).String()
	response, err := l.transport.RoundTrip(req)
	if err != nil {
		return nil, egress.Unanswered(ctx, place, q.Timeout, err)
	}
	defer egress.Drain(response.Body)
	if err := l.judge(response); err != nil {
		if errors.Is(err, observers.ErrNoAnswer) {
			return nil, err
		}
		return nil, fmt.Errorf("%s: %w", place, err)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, MaxAnswer+1))
	switch {
	case err != nil:
		return nil, egress.Unanswered(ctx, place, q.Timeout, err)
	case len(body) > MaxAnswer:
		return nil, retry.Permanent(fmt.Errorf("%s: the answer has more than %d bytes", place, MaxAnswer))
	case !json.Valid(body) || !utf8.Valid(body):
		return nil, fmt.Errorf("%s: %w", place, errNoJSON)
	}
	return body, nil
}

func (l *Lookups) judge(response *http.Response) error {
	status := response.StatusCode
	switch status {
	case http.StatusNoContent, http.StatusNotFound, http.StatusGone:
		return observers.ErrNoAnswer
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return retry.Permanent(errors.New("status " + strconv.Itoa(status)))
	}
	if status >= 200 && status <= 299 {
		return nil
	}
	return egress.Again(errors.New("status "+strconv.Itoa(status)), response, l.o.Now())
}

const mostRows = 1000

// read runs a SELECT within one of ours, so that it can be nothing else. All rows is a list, of at most mostRows.
func (l *Lookups) read(ctx context.Context, q observers.Lookup) ([]byte, error) {
	// The line end closes a comment at the end of the statement.
	statement := "SELECT row_to_json(answer) FROM (\n" + q.Select + "\n) AS answer LIMIT 1"
	if q.AllRows {
		statement = "SELECT coalesce(json_agg(answer), '[]') FROM (SELECT * FROM (\n" + q.Select + "\n) AS answers LIMIT " +
			strconv.Itoa(mostRows+1) + ") AS answer HAVING count(*) <= " + strconv.Itoa(mostRows)
	}
	answer, err := l.databases.Read(ctx, q.URL, statement, q.Args)
	switch {
	case err != nil:
		return nil, err
	case len(answer) == 0 && q.AllRows:
		return nil, retry.Permanent(fmt.Errorf("there are more than %d rows", mostRows))
	case len(answer) == 0:
		return nil, observers.ErrNoAnswer
	case len(answer) > MaxAnswer:
		return nil, retry.Permanent(fmt.Errorf("the answer has more than %d bytes", MaxAnswer))
	}
	return answer, nil
}
