package events_test

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tributary-dev/tributary/pkg/events"
)

var (
	idForm  = regexp.MustCompile(`^[A-Za-z0-9_~-]{1,200}$`)
	sources = rapid.StringMatching(`[a-z][a-z0-9_]{0,52}`)
	names   = rapid.StringMatching(`[a-z][a-z0-9-]{0,62}`)
)

func TestIDsHaveTheirForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		source, incarnation := sources.Draw(t, "source"), rapid.Uint64().Draw(t, "incarnation")
		lsn, n, index := events.LSN(rapid.Uint64().Draw(t, "lsn")), rapid.Uint32().Draw(t, "xid or oid"), rapid.Uint32().Draw(t, "index")
		text := rapid.String().Draw(t, "text")
		for kind, id := range map[string]string{
			"change":      string(events.AppendChangeID(nil, source, incarnation, lsn, n, index)),
			"snapshot":    string(events.AppendSnapshotID(nil, source, incarnation, lsn, n, []byte(text))),
			"application": events.ApplicationID(source, text, text),
		} {
			if !idForm.MatchString(id) || !events.ValidID(id) {
				t.Errorf("%s: %q is no id", kind, id)
			}
		}
	})
}

func FuzzValidID(f *testing.F) {
	f.Add("shop-1-0000000016B37488-771-3")
	f.Add("a.b")
	f.Add(strings.Repeat("x", 200))
	f.Add(strings.Repeat("x", 201))
	f.Add("a\n")
	f.Fuzz(func(t *testing.T, id string) {
		if events.ValidID(id) != (idForm.MatchString(id) && !strings.HasSuffix(id, "\n")) {
			t.Errorf("ValidID(%q) is %v", id, events.ValidID(id))
		}
	})
}

func TestIDsKeepTheirForm(t *testing.T) {
	for want, got := range map[string]string{
		"shop-1-0000000016B37488-771-3":                         string(events.AppendChangeID(nil, "shop", 1, 0x16B37488, 771, 3)),
		"shop-1-0000000016B37488-0-0":                           string(events.AppendChangeID(nil, "shop", 1, 0x16B37488, 0, 0)),
		"s-18446744073709551615-FFFFFFFFFFFFFFFF-4294967295-0":  string(events.AppendChangeID(nil, "s", 1<<64-1, 1<<64-1, 1<<32-1, 0)),
		"shop-1-0000000016B37000-s16385-WeUJgi7UfmupANBDyBRwPw": string(events.AppendSnapshotID(nil, "shop", 1, 0x16B37000, 16_385, []byte("public.orders/42"))),
		"shop~XB1nu270WsCrsNfaEKrjBA":                           events.ApplicationID("shop", "https://billing.example", "7"),
		"i~order-shipped~tell-carrier":                          events.EffectKey("i", "order-shipped", "tell-carrier"),
		"LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ":           events.KVKey("hello"),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestApplicationIDTellsSourcesApart(t *testing.T) {
	seen := make(map[string]string)
	for _, c := range [][3]string{{"a", "b", "c"}, {"a", "bc", ""}, {"a", "", "bc"}, {"a", "b", "d"}, {"b", "b", "c"}} {
		id := events.ApplicationID(c[0], c[1], c[2])
		if other, ok := seen[id]; ok {
			t.Errorf("%q has the id of %s", c, other)
		}
		seen[id] = strings.Join(c[:], "|")
	}
}

func TestEffectKeysAreOneToOne(t *testing.T) {
	ids := rapid.StringMatching(`[A-Za-z0-9_~-]{1,12}`)
	rapid.Check(t, func(t *rapid.T) {
		a := [3]string{ids.Draw(t, "id"), names.Draw(t, "observer"), names.Draw(t, "action")}
		b := [3]string{ids.Draw(t, "id"), names.Draw(t, "observer"), names.Draw(t, "action")}
		if rapid.Bool().Draw(t, "alike") {
			b[1], b[2] = a[1], a[2]
		}
		if (events.EffectKey(a[0], a[1], a[2]) == events.EffectKey(b[0], b[1], b[2])) != (a == b) {
			t.Errorf("%q and %q share a key, or differ in vain", a, b)
		}
	})
}
