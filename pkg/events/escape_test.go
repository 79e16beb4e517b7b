package events_test

import (
	"regexp"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/tributary-dev/tributary/pkg/events"
)

func TestEscapeToken(t *testing.T) {
	for text, want := range map[string]string{
		"":                  "%",
		"orders":            "orders",
		"Ab_9-z":            "Ab_9-z",
		"a.b":               "a%2Eb",
		"*":                 "%2A",
		">":                 "%3E",
		" ":                 "%20",
		"%":                 "%25",
		"~":                 "%7E",
		"a/b":               "a%2Fb",
		"ü":                 "%C3%BC",
		"\x00\xff":          "%00%FF",
		"%2E":               "%252E",
		"order line\n#\x7f": "order%20line%0A%23%7F",
	} {
		if got := events.EscapeToken(text); got != want {
			t.Errorf("%q becomes %s, want %s", text, got, want)
		}
	}
}

func TestUnescapeTokenRefusesWhatEscapeTokenDoesNotGive(t *testing.T) {
	for name, token := range map[string]string{
		"nothing":                 "",
		"a separator":             "a.b",
		"a wildcard":              "*",
		"a byte beyond ASCII":     "ü",
		"a lone percent":          "a%",
		"half an escape":          "%2",
		"hex in lower case":       "%2e",
		"no hex":                  "%GG",
		"an escape of a plain":    "%41",
		"an empty text in others": "%%",
		"an empty text and more":  "%a",
		"a space":                 "a b",
	} {
		if text, ok := events.UnescapeToken(token); ok {
			t.Errorf("%s: %q becomes %q", name, token, text)
		}
	}
}

var escaped = regexp.MustCompile(`^(%|([A-Za-z0-9_-]|%[0-9A-F]{2})+)$`)

func FuzzEscapeToken(f *testing.F) {
	for _, text := range []string{"", "%", "a.b", "%2E", "%2e", "%41", "ü\x00\xff", "%%"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		token := events.EscapeToken(text)
		if again, ok := events.UnescapeToken(token); !ok || again != text {
			t.Errorf("%q becomes %s, and that %q, %v", text, token, again, ok)
		}
		if !escaped.MatchString(token) {
			t.Errorf("%q becomes %q, which is no token", text, token)
		}
		// Read as a token, text is refused, or the one escape of what it means: no two tokens mean the same.
		if meaning, ok := events.UnescapeToken(text); ok && events.EscapeToken(meaning) != text {
			t.Errorf("%q means %q, whose escape is %q", text, meaning, events.EscapeToken(meaning))
		}
	})
}

// texts draws what is likely to collide: few characters, among them those of escapes.
var texts = rapid.StringOfN(rapid.RuneFrom([]rune("a2E%./\x00ü")), 0, 4, -1)

func TestEscapeTokenIsOneToOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := texts.Draw(t, "a"), texts.Draw(t, "b")
		if (events.EscapeToken(a) == events.EscapeToken(b)) != (a == b) {
			t.Errorf("%q and %q become %s and %s", a, b, events.EscapeToken(a), events.EscapeToken(b))
		}
	})
}

func TestEntityKeysOfDifferentRowsDiffer(t *testing.T) {
	rows := rapid.Custom(func(t *rapid.T) []string { return rapid.SliceOfN(texts, 2, 4).Draw(t, "schema, table, values") })
	key := func(row []string) string {
		var values [][]byte
		for _, value := range row[2:] {
			values = append(values, []byte(value))
		}
		return string(events.AppendEntityKey(nil, row[0], row[1], values...))
	}
	equal := func(a, b []string) bool {
		if len(a) != len(b) {
			return false
		}
		for i := range a {
			if a[i] != b[i] {
				return false
			}
		}
		return true
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := rows.Draw(t, "a"), rows.Draw(t, "b")
		if (key(a) == key(b)) != equal(a, b) {
			t.Errorf("%q and %q have the keys %s and %s", a, b, key(a), key(b))
		}
	})
}

func TestAppendEntityKey(t *testing.T) {
	if got, want := string(events.AppendEntityKey(nil, "public", "order lines", []byte("42"), nil, []byte("a/b"))), "public.order%20lines/42/%/a%2Fb"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := string(events.AppendEntityKey(nil, "public", "log")), "public.log"; got != want {
		t.Errorf("the key of a table without a primary key is %s, want %s", got, want)
	}
}

// A key that changed its partition would be worked on in two places at once: these values hold for ever.
func TestPartitionNeverChanges(t *testing.T) {
	for key, want := range map[string][2]int{ // of 16, of 1000
		"":                      {1, 945},
		"public.orders/42":      {4, 12},
		"public.orders/43":      {11, 683},
		"public.log":            {15, 31},
		"public.a%2Eb/%C3%BC/%": {15, 967},
	} {
		if got := [2]int{events.Partition(key, 16), events.Partition([]byte(key), 1000)}; got != want {
			t.Errorf("the partitions of %q are %v, want %v", key, got, want)
		}
	}
}

func TestPartitionSpreadsEvenly(t *testing.T) {
	const keys = 16_000
	for _, partitions := range []int{8, 16, 30, 32} {
		count := make([]int, partitions)
		for i := range keys {
			key := events.AppendEntityKey(nil, "public", "orders", []byte(strconv.Itoa(i)))
			count[events.Partition(key, partitions)]++
		}
		mean := keys / partitions
		for partition, n := range count {
			if n < mean*85/100 || n > mean*115/100 {
				t.Errorf("partition %d of %d has %d of %d keys", partition, partitions, n, keys)
			}
		}
	}
}
