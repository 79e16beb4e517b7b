package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/events"
)

// Validate gives the first error of each key, joined; each names the key's path.
func (c *Config) Validate() error {
	var errs []error
	wrong := map[string]bool{}
	report := func(path, message string) {
		if !wrong[path] {
			wrong[path] = true
			errs = append(errs, c.fault(path, message))
		}
	}
	for _, leaf := range leaves(c) {
		if message := judge(leaf); message != "" {
			report(leaf.path, message)
		}
	}
	if message := judgeServers(c.NATS.URL); message != "" {
		report("nats.url", message)
	}
	c.Indexer.judge(report)
	if message := judgeListen(c.HTTP.Listen); message != "" {
		report("http.listen", message)
	}
	if c.StateDir == "" {
		report("state_dir", "must name a folder")
	}
	c.judgeSources(report)
	c.judgeEndpoints(report)
	return errors.Join(errs...)
}

// judge checks a value against the limits of its tags; the answer completes "<key> …", and is empty where all is well.
func judge(l leaf) string {
	if values := l.tag.Get("oneof"); values != "" {
		if all := strings.Split(values, "|"); !slices.Contains(all, format(l.value)) {
			return fmt.Sprintf("must be %s, got %q", strings.Join(all, " or "), format(l.value))
		}
	}
	for _, limit := range []struct {
		tag, words string
		broken     func(order int) bool // how the value compares with the limit
	}{
		{"min", "at least", func(order int) bool { return order < 0 }},
		{"max", "at most", func(order int) bool { return order > 0 }},
	} {
		text, ok := l.tag.Lookup(limit.tag)
		if !ok {
			continue
		}
		bound := reflect.New(l.value.Type()).Elem()
		if err := setText(bound, text); err != nil {
			panic("config: the " + limit.tag + " of " + l.path + " must be " + err.Error())
		}
		if limit.broken(compare(l.value, bound)) {
			return fmt.Sprintf("must be %s %s, got %s", limit.words, text, format(l.value))
		}
	}
	return ""
}

// compare orders two numbers of the same type.
func compare(a, b reflect.Value) int {
	if a.Kind() == reflect.Float64 {
		return cmp.Compare(a.Float(), b.Float())
	}
	return cmp.Compare(a.Int(), b.Int())
}

func (c *Config) judgeSources(report func(path, message string)) {
	named, slots := map[string]int{}, map[string]int{}
	for i, source := range c.Sources {
		at := "sources[" + strconv.Itoa(i) + "]."
		switch first, twice := named[source.Name]; {
		case source.Name == "":
			report(at+"name", "must be set")
		case !events.ValidSource(source.Name):
			report(at+"name", fmt.Sprintf("must match [a-z][a-z0-9_]{0,52}, got %q", source.Name))
		case twice:
			report(at+"name", fmt.Sprintf("must be another than that of sources[%d], got %q", first, source.Name))
		default:
			named[source.Name] = i
		}
		if source.Postgres.Empty() {
			report(at+"postgres", "must be set, to env:NAME, file:PATH or postgres://user@host/database")
		} else if err := source.Postgres.check(); err != nil {
			report(at+"postgres", "must be "+err.Error())
		}
		if message := judgeTables(source.Tables); message != "" {
			report(at+"tables", message)
		}
		source.judgeChoice(at, report)
		if !validSlot(source.Slot) {
			report(at+"slot", fmt.Sprintf("must be 1 to 63 of a-z, 0-9 and _, got %q", source.Slot))
		}
		slot := source.Postgres.reference + "\x00" + source.Slot
		if first, twice := slots[slot]; twice {
			report(at+"slot", fmt.Sprintf("must be another than that of sources[%d] on the same database, got %q", first, source.Slot))
		}
		slots[slot] = i
		if len(source.Publication) == 0 || len(source.Publication) > 63 {
			report(at+"publication", fmt.Sprintf("must have 1 to 63 bytes, got %q", source.Publication))
		}
	}
}

func (c *Config) judgeEndpoints(report func(path, message string)) {
	named := map[string]int{}
	for i, endpoint := range c.Endpoints {
		at := "endpoints[" + strconv.Itoa(i) + "]."
		switch first, twice := named[endpoint.Name]; {
		case endpoint.Name == "":
			report(at+"name", "must be set, to scheme://host:port or the name of a circuit")
		case twice:
			report(at+"name", fmt.Sprintf("must be another than that of endpoints[%d], got %q", first, endpoint.Name))
		default:
			named[endpoint.Name] = i
			if whole := wholeEndpoint(endpoint.Name); whole != endpoint.Name {
				report(at+"name", fmt.Sprintf("must be scheme://host:port and no more, such as %s, got %q", whole, endpoint.Name))
			}
		}
		if !validRate(endpoint.Rate) {
			report(at+"rate", fmt.Sprintf("must be a number of calls in a time, such as 100/s, 600/m or 1000/h, got %q", endpoint.Rate))
		}
	}
}

// wholeEndpoint gives name as the endpoint of an action is written: with its port, in small letters, without a path. A limit
// under any other name would bound nothing. Names that hold no :// are those of circuits.
func wholeEndpoint(name string) string {
	const example = "https://carrier.example:443"
	if !strings.Contains(name, "://") {
		return name
	}
	u, err := url.Parse(name)
	if err != nil || u.Hostname() == "" {
		return example
	}
	if whole, known := actions.EndpointOf(u); known {
		return whole
	}
	return example
}

func validRate(text string) bool {
	if text == "" {
		return true
	}
	calls, unit, _ := strings.Cut(text, "/")
	n, err := strconv.ParseInt(calls, 10, 32)
	return err == nil && n >= 1 && slices.Contains([]string{"s", "m", "h"}, unit)
}

func judgeTables(tables []string) string {
	if len(tables) == 0 {
		return "must name a table, such as public.orders or public.*"
	}
	some := false
	for _, table := range tables {
		pattern, except := strings.CutPrefix(table, "!")
		if schema, name, dotted := strings.Cut(pattern, "."); !dotted || schema == "" || name == "" {
			return fmt.Sprintf("must be schema.table, such as public.orders or public.*, got %q", table)
		}
		some = some || !except
	}
	if !some {
		return "must name a table to publish, such as public.*, beside those that it leaves out"
	}
	return ""
}

// judgeChoice checks what of the tables is published, as far as that can be done without the expressions and the tables.
func (s *Source) judgeChoice(at string, report func(path, message string)) {
	for _, op := range s.Ops {
		if !events.Op(op).Valid() {
			report(at+"ops", fmt.Sprintf("must be of %v, got %q", events.Ops(), op))
		}
	}
	keyed := false
	for _, column := range slices.Sorted(maps.Keys(s.Mask)) {
		keyed = keyed || s.Mask[column] == "hmac"
		if how := s.Mask[column]; how != "sha256" && how != "hmac" && how != "redact" {
			report(at+"mask", fmt.Sprintf("must be sha256, hmac or redact for %s, got %q", column, how))
		}
	}
	switch {
	case keyed && s.MaskKey.Empty():
		report(at+"mask_key", "must be set, to env:NAME or file:PATH: a mask is hmac")
	case !s.MaskKey.Empty() && !s.MaskKey.elsewhere():
		report(at+"mask_key", "must be env:NAME or file:PATH (the value is not shown)")
	}
}

func validSlot(name string) bool {
	foreign := func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') }
	return len(name) >= 1 && len(name) <= 63 && !strings.ContainsFunc(name, foreign)
}

func judgeServers(text string) string {
	if text == "" {
		return ""
	}
	for server := range strings.SplitSeq(text, ",") {
		server = strings.TrimSpace(server)
		if !strings.Contains(server, "://") {
			server = "nats://" + server
		}
		u, err := url.Parse(server)
		if err != nil || u.Hostname() == "" || !validPort(u.Port(), true) || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return fmt.Sprintf("must be nats://host:port, or several separated by commas, got %q", redact(text))
		}
	}
	return ""
}

func (x *Indexer) judge(report func(path, message string)) {
	if message := judgeElasticsearch(x.Elasticsearch); message != "" {
		report("indexer.elasticsearch", message)
	}
	for path, secret := range map[string]Secret{"indexer.password": x.Password, "indexer.api_key": x.APIKey} {
		if !secret.Empty() && !secret.elsewhere() {
			report(path, "must be env:NAME or file:PATH (the value is not shown)")
		}
	}
	switch {
	case !x.APIKey.Empty() && x.Username != "":
		report("indexer.api_key", "must not be set beside indexer.username: it is used instead of a user")
	case x.Username != "" && x.Password.Empty():
		report("indexer.username", "must not be set without indexer.password")
	case x.Username == "" && !x.Password.Empty():
		report("indexer.password", "must not be set without indexer.username")
	}
	if foreign := strings.Trim(x.Index, "abcdefghijklmnopqrstuvwxyz0123456789-_."); foreign != "" || x.Index == "" || strings.Contains("-_.", x.Index[:1]) {
		report("indexer.index", fmt.Sprintf("must be of a-z, 0-9, -, _ and ., and begin with a letter or digit, got %q", x.Index))
	}
	if x.BulkBytes > x.QueueBytes {
		report("indexer.bulk_bytes", fmt.Sprintf("must be at most indexer.queue_bytes (%s), got %s", x.QueueBytes, x.BulkBytes))
	}
}

func judgeElasticsearch(text string) string {
	if text == "" {
		return ""
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Sprintf("must be http://host:port or https://host:port, got %q", redact(text))
	}
	return ""
}

func judgeListen(text string) string {
	_, port, err := net.SplitHostPort(text)
	if err != nil || !validPort(port, false) {
		return fmt.Sprintf("must be host:port, such as 127.0.0.1:0 or :9090, got %q", text)
	}
	return ""
}

func validPort(text string, optional bool) bool {
	if text == "" {
		return optional
	}
	_, err := strconv.ParseUint(text, 10, 16)
	return err == nil
}
