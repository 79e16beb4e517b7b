package elastic

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/elastic/go-elasticsearch/v8/esapi"

	"github.com/tributary-dev/tributary/pkg/retry"
)

// product is what runs at the address.
type product struct {
	name    string // elasticsearch or opensearch
	version string // empty where it is not told
}

const (
	elasticsearch = "elasticsearch"
	opensearch    = "opensearch"
)

// Prepare finds out what runs at the address, and installs the template. It errors with retry.Permanent where no
// waiting helps: what is there is something else, or refuses us. It is idempotent.
func (x *Index) Prepare(ctx context.Context) error {
	found, err := x.recognize(ctx)
	if err != nil {
		return fmt.Errorf("look at Elasticsearch: %w", err)
	}
	x.product = found
	if err := x.ensureTemplate(ctx); err != nil {
		return denied(err)
	}
	x.log.Info("the index is there", "product", found.name, "version", found.version, "prefix", x.options.Prefix)
	return nil
}

// recognize asks once who answers. Every answer of Elasticsearch has the header, also those that are errors.
func (x *Index) recognize(ctx context.Context) (product, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	answer, err := esapi.InfoRequest{}.Do(ctx, x.transport)
	if err != nil {
		return product{}, err
	}
	var info struct {
		Version struct {
			Number       string `json:"number"`
			Distribution string `json:"distribution"`
		} `json:"version"`
	}
	err = read(answer, &info)
	named := answer.Header.Get("X-Elastic-Product") == "Elasticsearch"
	switch {
	case hasStatus(err, http.StatusUnauthorized, http.StatusForbidden):
		return product{}, denied(err)
	case named && (err == nil || hasStatus(err, http.StatusMethodNotAllowed)): // a build without that page
		return product{elasticsearch, info.Version.Number}, nil
	case answer.StatusCode >= http.StatusInternalServerError, hasStatus(err, http.StatusTooManyRequests):
		return product{}, err // a proxy's or a server's bad moment
	case err == nil && info.Version.Distribution == opensearch:
		return product{opensearch, info.Version.Number}, nil
	case x.options.AllowUnknown:
		return product{elasticsearch, info.Version.Number}, nil
	}
	return product{}, retry.Permanent(fmt.Errorf("what answers at %s (status %d) does not say that it is Elasticsearch or OpenSearch", x.address(), answer.StatusCode))
}

// address is the server's without a password.
func (x *Index) address() string { return x.transport.URLs()[0].Redacted() }

// denied marks what only other credentials mend.
func denied(err error) error {
	if hasStatus(err, http.StatusUnauthorized, http.StatusForbidden) {
		return retry.Permanent(fmt.Errorf("%w: %w", ErrDenied, err))
	}
	return err
}

// ErrDenied says that the server does not let us.
var ErrDenied = errors.New("the credentials do not suffice")

// managedBy marks the template as ours.
const managedBy = "tributary"

// templateLasts is for how long the template is taken for being there.
const templateLasts = 30 * time.Second

// ensureTemplate installs the template where the server may have lost it: it was away, or not asked for a while. An
// index that it makes without the template would take every column of every row for a field.
func (x *Index) ensureTemplate(ctx context.Context) error {
	now := time.Now()
	if now.Sub(time.Unix(0, x.installed.Load())) < templateLasts {
		return nil
	}
	if err := x.install(ctx); err != nil {
		return fmt.Errorf("install the index template %s: %w", x.options.Prefix, err)
	}
	x.installed.Store(now.UnixNano())
	return nil
}

// install makes the template, or brings it to this version. One that is newer, or somebody else's, stays.
func (x *Index) install(ctx context.Context) error {
	var there struct {
		Templates []struct {
			Template struct {
				Version int `json:"version"`
				Meta    struct {
					ManagedBy string `json:"managed_by"`
				} `json:"_meta"`
			} `json:"index_template"`
		} `json:"index_templates"`
	}
	err := x.ask(ctx, esapi.IndicesGetIndexTemplateRequest{Name: x.options.Prefix}, &there)
	if err != nil && !hasStatus(err, http.StatusNotFound) {
		return err
	}
	if len(there.Templates) > 0 {
		template := there.Templates[0].Template
		if template.Meta.ManagedBy != managedBy {
			x.log.Warn("the index template is not Tributary's own: it stays as it is", "template", x.options.Prefix)
			return nil
		}
		if template.Version >= templateVersion {
			return nil
		}
	}
	body, err := json.Marshal(x.template())
	if err != nil {
		return err
	}
	return x.ask(ctx, esapi.IndicesPutIndexTemplateRequest{Name: x.options.Prefix, Body: bytes.NewReader(body)}, nil)
}
