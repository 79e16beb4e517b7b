package events_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tributary-dev/tributary/pkg/events"
)

func TestAddress(t *testing.T) {
	cases := map[string]struct {
		subject     string
		want        events.Address
		entity      string
		application bool
	}{
		"a row": {
			"events.007.shop.public.orders.update", events.Address{Partition: 7, Source: "shop", Schema: "public", Table: "orders", Op: events.OpUpdate},
			"public.orders", false,
		},
		"names with separators": {
			"events.999.shop.my%2Eschema.order%20lines.insert",
			events.Address{Partition: 999, Source: "shop", Schema: "my.schema", Table: "order lines", Op: events.OpInsert},
			"my.schema.order lines", false,
		},
		"a logical message": {
			"events.000.shop.%.invoice.message", events.Address{Source: "shop", Table: "invoice", Op: events.OpMessage}, "invoice", false,
		},
		"a logical message without a prefix": {"events.000.shop.%.%.message", events.Address{Source: "shop", Op: events.OpMessage}, "", false},
		"an application's": {
			"events.012.billing.invoice.paid.message", events.Address{Partition: 12, Source: "billing", Schema: "invoice", Table: "paid", Op: events.OpMessage},
			"invoice.paid", true,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := events.ParseAddress(c.subject)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if got.Subject() != c.subject || got.Entity() != c.entity || got.FromApplication() != c.application {
				t.Errorf("subject %s, entity %q, of an application %v", got.Subject(), got.Entity(), got.FromApplication())
			}
		})
	}
}

func TestEffectID(t *testing.T) {
	e := &events.Event{ID: "7", Source: "https://billing.example"}
	row := events.Address{Source: "shop", Schema: "public", Table: "orders", Op: events.OpUpdate}
	if got := row.EffectID(e); got != "7" {
		t.Errorf("a row's effects are keyed by %s", got)
	}
	application := events.Address{Source: "shop", Schema: "public", Table: "orders", Op: events.OpMessage}
	if got := application.EffectID(e); got != events.ApplicationID("shop", e.Source, e.ID) {
		t.Errorf("an application's effects are keyed by %s", got)
	}
}

var garbage = []string{
	"", ".", "events", "events.", "events.007.shop.public.orders", "events.007.shop.public.orders.update.more", "events.7.shop.public.orders.update",
	"events.0007.shop.public.orders.update", "events.-07.shop.public.orders.update", "events.007..public.orders.update", "events.007.%.public.orders.update",
	"events.007.shop..orders.update", "events.007.shop.public.orders.merge", "events.007.shop.public.orders.", "events.007.shop.public.or ders.update",
	"events.*.shop.public.orders.update", "events.007.>", "Events.007.shop.public.orders.update", "positions.shop", "events.007.shop.public.%6Frders.update",
	"events.٠٠٧.shop.public.orders.update", "publish.shop.order.paid",
}

func TestParseAddressRefusesGarbage(t *testing.T) {
	for _, subject := range garbage {
		if got, err := events.ParseAddress(subject); !errors.Is(err, events.ErrInvalid) || got != (events.Address{}) {
			t.Errorf("%q is read as %+v, %v", subject, got, err)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, subject := range append(garbage, "events.007.shop.public.orders.update", "events.000.shop.%.%.message") {
		f.Add(subject)
	}
	f.Fuzz(func(t *testing.T, subject string) {
		if a, err := events.ParseAddress(subject); err == nil && a.Subject() != subject {
			t.Errorf("%q is read as %s", subject, a.Subject())
		}
	})
}

var token = rapid.StringOfN(rapid.Rune(), 0, 12, -1)

func TestAddressesComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := events.Address{
			Partition: rapid.IntRange(0, 999).Draw(t, "partition"), Source: sources.Draw(t, "source"), Schema: token.Draw(t, "schema"),
			Table: token.Draw(t, "table"), Op: rapid.SampledFrom(events.Ops()).Draw(t, "op"),
		}
		if again, err := events.ParseAddress(a.Subject()); err != nil || again != a {
			t.Errorf("%+v becomes %s, and that %+v, %v", a, a.Subject(), again, err)
		}
	})
}

func TestParsePublication(t *testing.T) {
	cases := map[string]struct {
		subject string
		want    events.Publication
		key     string
		says    string
	}{
		"without a key":        {"publish.billing.invoice.paid", events.Publication{Source: "billing", Entity: "invoice", Type: "paid"}, "invoice", ""},
		"with a key":           {"publish.billing.invoice.paid.7", events.Publication{Source: "billing", Entity: "invoice", Type: "paid", Key: "7"}, "invoice/7", ""},
		"with escapes":         {"publish.billing.in%2Fvoice.paid.a%2Eb", events.Publication{Source: "billing", Entity: "in/voice", Type: "paid", Key: "a.b"}, "in%2Fvoice/a%2Eb", ""},
		"too short":            {subject: "publish.billing.invoice", says: "is not publish.<source>.<entity>.<type>[.<key>]"},
		"too long":             {subject: "publish.billing.invoice.paid.7.8", says: "is not publish.<source>.<entity>.<type>[.<key>]"},
		"another subject":      {subject: "events.billing.invoice.paid", says: "is not publish.<source>.<entity>.<type>[.<key>]"},
		"no source of ours":    {subject: "publish.Billing.invoice.paid", says: `source "Billing" is not [a-z][a-z0-9_]{0,52}`},
		"a source too long":    {subject: "publish." + strings.Repeat("a", 54) + ".invoice.paid", says: "is not [a-z][a-z0-9_]{0,52}"},
		"an empty entity":      {subject: "publish.billing.%.paid", says: "the entity is empty"},
		"an empty type":        {subject: "publish.billing.invoice.%", says: "the type is empty"},
		"an empty token":       {subject: "publish.billing.invoice..7", says: `token "" is not escaped`},
		"a token not escaped":  {subject: "publish.billing.invöice.paid", says: `token "invöice" is not escaped`},
		"an escape that is no": {subject: "publish.billing.invoice.paid.%zz", says: `token "%zz" is not escaped`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := events.ParsePublication(c.subject)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) || got != (events.Publication{}) {
					t.Errorf("got %+v, %v; want %q", got, err, c.says)
				}
				return
			}
			if err != nil || got != c.want || got.EntityKey() != c.key || got.Subject() != c.subject {
				t.Errorf("got %+v with key %s and subject %s, %v", got, got.EntityKey(), got.Subject(), err)
			}
		})
	}
}

func FuzzParsePublication(f *testing.F) {
	for _, subject := range append(garbage, "publish.billing.invoice.paid.7", "publish.billing.invoice.paid.%") {
		f.Add(subject)
	}
	f.Fuzz(func(t *testing.T, subject string) {
		p, err := events.ParsePublication(subject)
		if err != nil {
			return
		}
		if again, err := events.ParsePublication(p.Subject()); err != nil || again != p || !events.ValidSource(p.Source) {
			t.Errorf("%q is %+v, and that %+v, %v", subject, p, again, err)
		}
		address := events.Address{Source: p.Source, Schema: p.Entity, Table: p.Type, Op: events.OpMessage}
		if again, err := events.ParseAddress(address.Subject()); err != nil || again != address || !address.FromApplication() {
			t.Errorf("%q has the address %+v, and that is read as %+v, %v", subject, address, again, err)
		}
	})
}

func TestNames(t *testing.T) {
	source, name := regexp.MustCompile(`^[a-z][a-z0-9_]{0,52}$`), regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)
	for _, text := range []string{
		"", "a", "A", "shop", "shop_2", "2shop", "_shop", "-shop", "order-shipped", "order_shipped", "INBOX", "a.b", "a b", "ä", "a\n",
		strings.Repeat("a", 53), strings.Repeat("a", 54), strings.Repeat("a", 63), strings.Repeat("a", 64),
	} {
		if got := events.ValidSource(text); got != source.MatchString(text) {
			t.Errorf("ValidSource(%q) is %v", text, got)
		}
		if got := events.ValidName(text); got != name.MatchString(text) {
			t.Errorf("ValidName(%q) is %v", text, got)
		}
	}
	if events.ValidSource(events.InboxSource) {
		t.Error("a source may have INBOX's name")
	}
}

func TestFilters(t *testing.T) {
	for want, got := range map[string]string{
		"events.*.shop.>": events.EventsOfSource("shop"),
		"events.007.>":    events.EventsOfPartition(7),
		"positions.shop":  events.PositionSubject("shop"),
		"positions.INBOX": events.PositionSubject(events.InboxSource),
		"015":             events.PartitionName(15),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
