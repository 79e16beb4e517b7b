// Package indextest holds every index to one behaviour: what it does with documents, and what it answers.
package indextest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/indexer"
	"github.com/tributary-dev/tributary/pkg/indexer/query"
)

// Index is what is tested.
type Index interface {
	Write(ctx context.Context, documents []indexer.Document) ([]indexer.Outcome, error)
	Search(ctx context.Context, r indexer.Request) (indexer.Found, error)
	Describe(ctx context.Context) (indexer.Info, error)
	Months(ctx context.Context) ([]string, error)
	Drop(ctx context.Context, months []string) error
}

// Opened is an empty index, and how to make it show what it has.
type Opened struct {
	Index
	Refresh func()
}

// Run runs the suite.
func Run(t *testing.T, open func(t *testing.T) Opened) {
	t.Run("documents are created once", func(t *testing.T) { createdOnce(t, open(t)) })
	t.Run("queries find what they mean", func(t *testing.T) { queries(t, open(t)) })
	t.Run("hits are in order, and can be paged", func(t *testing.T) { pages(t, open(t)) })
	t.Run("whole months go", func(t *testing.T) { months(t, open(t)) })
	t.Run("an empty index answers", func(t *testing.T) { empty(t, open(t)) })
}

// start is the time of the first event; the next ones are an hour later each.
func start() time.Time { return time.Date(2026, 11, 23, 8, 45, 53, 123456000, time.UTC) }

// Row makes a message of a change: of table public.orders, number n of its transaction.
func Row(n int, op events.Op, before, after string) indexer.Message {
	c := events.Change{
		ID:     events.AppendChangeID(nil, "shop", 1, 0x16B37488, 771, uint32(n)),
		Source: "shop", Op: op, Schema: "public", Table: "orders", Time: start().Add(time.Duration(n-1) * time.Hour),
		PartitionKey: fmt.Appendf(nil, "public.orders/%d", n), Sequence: events.Sequence{Commit: 0x16B37488, Index: uint32(n)},
		Key: fmt.Appendf(nil, `{"id":%d}`, n), InTransaction: true, XID: 771, Commit: 0x16B37488, Last: n == 1,
	}
	if before != "" {
		c.Before = []byte(before)
	}
	if after != "" {
		c.After = []byte(after)
	}
	if op == events.OpUpdate {
		c.Changed = []string{"status"}
	}
	return indexer.Message{
		Subject: events.Address{Partition: 7, Source: "shop", Schema: "public", Table: "orders", Op: op}.Subject(),
		Data:    events.AppendChange(nil, &c), Sequence: uint64(n), Stored: c.Time.Add(time.Second),
	}
}

// Published makes a message of an application's event.
func Published(t testing.TB, n int, stored time.Time, body string) indexer.Message {
	t.Helper()
	publication := events.Publication{Source: "web", Entity: "order", Type: "placed", Key: fmt.Sprint(n)}
	data, err := events.AppendPublished(nil, events.Published{
		Publication: publication, Body: []byte(body), ID: fmt.Sprintf("m-%d", n), Sequence: uint64(n), Time: stored,
	})
	if err != nil {
		t.Fatal(err)
	}
	return indexer.Message{
		Subject: events.Address{Partition: 3, Source: "web", Schema: "order", Table: "placed", Op: events.OpMessage}.Subject(),
		Data:    data, Sequence: uint64(100 + n), Stored: stored,
	}
}

// Logical makes a message of a pg_logical_emit_message.
func Logical(n int, prefix, content string) indexer.Message {
	c := events.Change{
		ID: events.AppendChangeID(nil, "shop", 1, 0x16B37488, 771, uint32(n)), Source: "shop", Op: events.OpMessage,
		Time: start().Add(time.Duration(n-1) * time.Hour), PartitionKey: []byte(prefix), Prefix: prefix, Content: []byte(content),
		Sequence: events.Sequence{Commit: 0x16B37488, Index: uint32(n)}, InTransaction: true, XID: 771, Commit: 0x16B37488,
	}
	return indexer.Message{
		Subject: events.Address{Partition: 1, Source: "shop", Table: prefix, Op: events.OpMessage}.Subject(),
		Data:    events.AppendChange(nil, &c), Sequence: uint64(n), Stored: c.Time,
	}
}

// Documents makes documents.
func Documents(t testing.TB, messages ...indexer.Message) []indexer.Document {
	t.Helper()
	var documents []indexer.Document
	for _, m := range messages {
		d, err := indexer.NewDocument(m)
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, d)
	}
	return documents
}

func write(t *testing.T, x Opened, want indexer.State, documents ...indexer.Document) {
	t.Helper()
	outcomes, err := x.Write(t.Context(), documents)
	if err != nil || len(outcomes) != len(documents) {
		t.Fatalf("%d outcomes, %v", len(outcomes), err)
	}
	for i, o := range outcomes {
		if o.State != want {
			t.Errorf("%s: outcome %d, %v, want %d", documents[i].ID, o.State, o.Err, want)
		}
	}
	x.Refresh()
}

func createdOnce(t *testing.T, x Opened) {
	first, second := Row(1, events.OpInsert, "", `{"id":1,"status":"<new> & \u00e9"}`), Row(2, events.OpInsert, "", `{"id":2}`)
	documents := Documents(t, first, second)
	write(t, x, indexer.Created, documents...)
	write(t, x, indexer.Existed, documents...)
	other := Row(1, events.OpInsert, "", `{"id":1,"status":"other"}`)
	write(t, x, indexer.Existed, Documents(t, other)...)

	twice := Documents(t, Row(3, events.OpInsert, "", `{"id":3}`), Row(3, events.OpInsert, "", `{"id":3}`))
	outcomes, err := x.Write(t.Context(), twice)
	if err != nil || outcomes[0].State != indexer.Created || outcomes[1].State != indexer.Existed {
		t.Errorf("the same document twice in a bulk: %v %v", outcomes, err)
	}
	x.Refresh()
	info, err := x.Describe(t.Context())
	if err != nil || info.Documents != 3 || info.Backend == "" {
		t.Errorf("the index has %+v, %v", info, err)
	}
	found := ask(t, x, "op:insert", indexer.Request{Size: 10, Sort: indexer.Oldest})
	if len(found.Documents) != 3 {
		t.Fatalf("%d hits", len(found.Documents))
	}
	var body map[string]any
	if err := json.Unmarshal(found.Documents[0], &body); err != nil || body[indexer.Envelope] != string(first.Data) {
		t.Errorf("%v, the envelope is %s, want %s", err, body[indexer.Envelope], first.Data)
	}
}

func ask(t *testing.T, x Opened, text string, r indexer.Request) indexer.Found {
	t.Helper()
	var err error
	if r.Query, err = query.Parse(text, start().Add(24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	found, err := x.Search(t.Context(), r)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return found
}

// numbers gives the numbers of the messages that hits are of.
func numbers(t *testing.T, found indexer.Found) []int {
	t.Helper()
	var all []int
	for _, document := range found.Documents {
		var body struct {
			Sequence int `json:"stream_sequence"`
		}
		if err := json.Unmarshal(document, &body); err != nil {
			t.Fatal(err)
		}
		all = append(all, body.Sequence)
	}
	return all
}

func corpus(t *testing.T) []indexer.Document {
	return Documents(t,
		Row(1, events.OpInsert, "", `{"id":1,"status":"packed","total":19.90,"city":"New York","tags":["a","b c"],"at":"2026-11-01"}`),
		Row(2, events.OpUpdate, `{"id":2,"status":"packed","total":5}`, `{"id":2,"status":"Shipped","total":5,"big":123456789012345678901234567890.10}`),
		Row(3, events.OpDelete, `{"id":3,"status":"lost","city":"Newark","note":"left in the rain","at":"2026-12-24"}`, ""),
		Row(4, events.OpInsert, "", `{"id":4,"deep":{"er":{"x":"y*z","n":null}},"empty":{},"flag":true,"": "nameless","a.b":"dotted","multi":"line one\nline two"}`),
		Row(5, events.OpInsert, "", `{"id":5,"status":null,"long":"`+strings.Repeat("x", 40_000)+`"}`),
		Logical(6, "audit", `{"who":"ann","what":["login","logout"]}`),
		Published(t, 1, start(), `{"total":50,
			"customer":"Zoë"}`),
		Published(t, 2, start().AddDate(0, 1, 0), `"just text"`),
	)
}

func queries(t *testing.T, x Opened) {
	write(t, x, indexer.Created, corpus(t)...)
	for text, want := range map[string][]int{
		"":                                      {1, 2, 3, 4, 5, 6, 101, 102},
		"op:insert":                             {1, 4, 5},
		"NOT op:insert":                         {2, 3, 6, 101, 102},
		"-op:insert -op:message":                {2, 3},
		"op:(insert OR delete) city":            nil,
		"op:(insert OR delete)":                 {1, 3, 4, 5},
		"source:shop op:message":                {6},
		"ce_source:/tributary/web":              {101, 102},
		"entity:public.orders":                  {1, 2, 3, 4, 5},
		"entity:public.*":                       {1, 2, 3, 4, 5},
		"entity:p*rs":                           {1, 2, 3, 4, 5},
		"entity:order?placed":                   {101, 102},
		"entity:audit":                          {6},
		"type:tributary.row.update.v1":          {2},
		"schema:public table:orders key_text:3": {3},
		"key.id:2":                              {2},
		"key:2":                                 {2},
		"partitionkey:public.orders/2":          {2},
		"public.orders/2":                       {2},
		"shop-1-0000000016B37488-771-4":         {4},
		"id:m-1":                                {101},
		"packed":                                {1, 2},
		"PACKED":                                {1, 2},
		"shipped":                               {2},
		"after.status:shipped":                  nil,
		"after.status:Shipped":                  {2},
		"after.status:Ship*":                    {2},
		"after:Shipped":                         {2},
		"after:S*d":                             {2},
		"before.status:packed":                  {2},
		"before.status:(packed OR lost)":        {2, 3},
		"text:ship*":                            {2},
		"text:s?ipped":                          {2},
		`"new york"`:                            {1},
		`"york new"`:                            nil,
		"new york":                              {1},
		`after.city:"New York"`:                 {1},
		"before.city:New*":                      {3},
		`"the rain"`:                            {3},
		`"rain left"`:                           nil,
		`"lost newark"`:                         nil, // not over the border of two columns
		"after.total:19.90":                     {1},
		"after.total:19.9":                      nil,
		"after.big:123456789012345678901234567890.10": {2},
		"after.tags:a":                          {1},
		`after.tags:"b c"`:                      {1},
		"after.deep.er.x:y\\*z":                 {4},
		"after.deep.er.x:*":                     {4},
		"after.deep.er.n:*":                     nil,
		"after.deep:*":                          nil,
		"after.status:*":                        {1, 2},
		"after:*":                               {1, 2, 4, 5},
		"before:* OR data:*":                    {2, 3, 6, 101, 102},
		"after.flag:true":                       {4},
		"after.a.b:dotted":                      {4},
		"after:nameless":                        {4},
		"after:line*two":                        {4},
		"data.who:ann":                          nil,
		"data.content.who:ann":                  {6},
		"data.content.what:logout":              {6},
		"data.prefix:audit":                     {6},
		"ann":                                   {6},
		"data.customer:Zoë":                     {101},
		"zoë":                                   {101},
		"data.total:50":                         {101},
		`data.value:"just text"`:                {102},
		"just":                                  {102},
		"changed:status":                        {2},
		"changed:*":                             {2},
		"tx.id:771":                             {1, 2, 3, 4, 5, 6},
		"tx.id:>771":                            nil,
		"tx.index:[2 TO 3]":                     {2, 3},
		"tx.index:{2 TO 3]":                     {3},
		"tx.index:<=1":                          {1},
		"tx.last:true":                          {1},
		"tx.last:false":                         {2, 3, 4, 5, 6},
		"tx.commit_lsn:0/16B37488":              {1, 2, 3, 4, 5, 6},
		"stream_sequence:>100":                  {101, 102},
		"partition:7":                           {1, 2, 3, 4, 5},
		"sequence:>0000000016B37488.0000000005": {6},
		"sequence:[* TO 0000000000000002.0000000001]": {101, 102},
		"time:2026-11-23T08:45:53.123456Z":            {1, 101},
		"time:2026-11-23T08:45:53.124Z":               nil,
		"time:[2026-11-23T09 TO 2026-11-23T10]":       {2, 3},
		"time:>2026-11-23":                            {102},
		"time:<=now-20h":                              {1, 2, 3, 4, 5, 101},
		"stored:2026-12":                              {102},
		"after.at:[2026-11-01 TO 2026-11-30]":         {1},
		"after.at:>2026-11-01":                        nil,
		"before.at:>2026-11-01":                       {3},
		"before.at:<2027-01-01":                       {3},
		"before:{Newark TO z}":                        {3, 2},
		"traceparent:*":                               {1, 2, 3, 4, 5, 6, 101, 102},
		"oversize:*":                                  nil,
		"unchanged:*":                                 nil,
		"(packed OR ann) -before:*":                   {1, 6},
	} {
		t.Run(text, func(t *testing.T) {
			found := ask(t, x, text, indexer.Request{Size: 100})
			got := numbers(t, found)
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if found.Total != len(want) {
				t.Errorf("the total is %d", found.Total)
			}
		})
	}
}

func pages(t *testing.T, x Opened) {
	write(t, x, indexer.Created, corpus(t)...)
	for name, c := range map[string]struct {
		text       string
		sort       indexer.Sort
		size, from int
		want       []int
	}{
		"newest first":    {"", indexer.Newest, 10, 0, []int{102, 6, 5, 4, 3, 2, 1, 101}},
		"oldest first":    {"", indexer.Oldest, 10, 0, []int{101, 1, 2, 3, 4, 5, 6, 102}},
		"the first page":  {"", indexer.Oldest, 3, 0, []int{101, 1, 2}},
		"the second page": {"", indexer.Oldest, 3, 3, []int{3, 4, 5}},
		"behind the last": {"", indexer.Oldest, 3, 8, nil},
		"none":            {"", indexer.Oldest, 0, 0, nil},
		"the best first":  {"left OR rain OR packed OR rain", indexer.Best, 1, 0, []int{3}},
	} {
		t.Run(name, func(t *testing.T) {
			found := ask(t, x, c.text, indexer.Request{Size: c.size, From: c.from, Sort: c.sort})
			if diff := cmp.Diff(c.want, numbers(t, found)); diff != "" {
				t.Error(diff)
			}
			if c.text == "" && found.Total != 8 {
				t.Errorf("the total is %d", found.Total)
			}
		})
	}
}

func months(t *testing.T, x Opened) {
	write(t, x, indexer.Created, corpus(t)...)
	check := func(want ...string) {
		t.Helper()
		got, err := x.Months(t.Context())
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v %s", err, diff)
		}
	}
	check("2026.11", "2026.12")
	for range 2 {
		if err := x.Drop(t.Context(), []string{"2026.11", "2025.01"}); err != nil {
			t.Fatal(err)
		}
	}
	x.Refresh()
	check("2026.12")
	if got := numbers(t, ask(t, x, "", indexer.Request{Size: 10})); !slices.Equal(got, []int{102}) {
		t.Errorf("the index has %v", got)
	}
	write(t, x, indexer.Created, Documents(t, Row(1, events.OpInsert, "", `{"id":1}`))...)
	check("2026.11", "2026.12")
}

func empty(t *testing.T, x Opened) {
	if found := ask(t, x, "anything", indexer.Request{Size: 10}); found.Total != 0 || len(found.Documents) != 0 {
		t.Errorf("found %+v", found)
	}
	info, err := x.Describe(t.Context())
	if err != nil || info.Documents != 0 || len(info.Months) != 0 {
		t.Errorf("%+v %v", info, err)
	}
	if outcomes, err := x.Write(t.Context(), nil); err == nil && len(outcomes) != 0 {
		t.Errorf("%v %v", outcomes, err)
	}
}
