package cli

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/indexer"
)

type searchCommand struct {
	Query []string `arg:"" optional:"" help:"What to look for; everything if nothing is said. Words are joined by blanks."`
	Limit most     `default:"20" help:"At most so many; ${default} where it is not given." placeholder:"N"`
	From  int      `help:"Leave out so many before." placeholder:"N"`
	Sort  string   `default:"newest" enum:"newest,oldest,best" help:"newest, oldest or best first." placeholder:"ORDER"`
}

// Help is shown below the flags.
func (searchCommand) Help() string {
	return `The indexer is asked, whichever index it has. Words are looked for in rows and data; field:value compares a
field, after.status:shipped a column of the new row, time:>now-1h a time; AND, OR, NOT, parentheses, "a phrase" and
pre* work as in other search engines. Put a query of several words in quotes of your shell.

With -o json: {total, hits[{id, subject, sequence, stored, envelope}]}.

Examples:
  tributary search shipped
  tributary search 'entity:public.orders AND after.status:shipped' --limit 5
  tributary search 'time:>now-1h NOT op:snapshot' -o json | jq .total`
}

// Run searches.
func (c *searchCommand) Run(in *Invocation) error {
	return in.look(func(ctx context.Context, d *deployment) error {
		result, err := indexer.Search(ctx, d.nc, indexer.Query{
			Text: strings.Join(c.Query, " "), Size: int(c.Limit), From: c.From, Sort: indexer.Sort(c.Sort),
		})
		if errors.Is(err, indexer.ErrWrongQuery) {
			return usage("%v", err)
		}
		if err != nil {
			return err
		}
		if in.wantsJSON() {
			if result.Hits == nil {
				result.Hits = []indexer.Hit{}
			}
			return in.json(result)
		}
		p := in.text()
		var rows [][]string
		for _, hit := range result.Hits {
			op, key := "", ""
			if address, err := events.ParseAddress(hit.Subject); err == nil {
				op = string(address.Op)
			}
			if event, err := events.Parse(hit.Envelope); err == nil {
				key = event.PartitionKey
			}
			rows = append(rows, []string{strconv.FormatUint(hit.Sequence, 10), stamp(hit.Stored), p.age(hit.Stored), op, key, hit.ID})
		}
		p.table([]column{{title: "SEQUENCE", right: true}, {title: "STORED"}, {title: "AGE", right: true}, {title: "OP"}, {title: "KEY", cut: true},
			{title: "ID", cut: true}}, rows)
		p.line("%s of %d", count(len(rows), "event", "events"), result.Total)
		return p.err
	})
}
