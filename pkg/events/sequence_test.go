package events_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tributary-dev/tributary/pkg/events"
)

var sequences = rapid.Custom(func(t *rapid.T) events.Sequence {
	// Few values, so that commits are alike now and then, and the whole range besides.
	commit := rapid.OneOf(rapid.Uint64Range(0, 3), rapid.Uint64()).Draw(t, "commit")
	index := rapid.OneOf(rapid.Uint32Range(0, 20), rapid.Uint32()).Draw(t, "index")
	return events.Sequence{Commit: commit, Index: index}
})

var sequenceForm = regexp.MustCompile(`^[0-9A-F]{16}\.[0-9]{10}$`)

func TestSequencesSortAsText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := sequences.Draw(t, "a"), sequences.Draw(t, "b")
		order := cmp.Or(cmp.Compare(a.Commit, b.Commit), cmp.Compare(a.Index, b.Index))
		if a.Compare(b) != order || strings.Compare(a.String(), b.String()) != order {
			t.Errorf("%+v and %+v compare as %d, their texts as %d, want %d", a, b, a.Compare(b), strings.Compare(a.String(), b.String()), order)
		}
	})
}

func TestSequencesComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := sequences.Draw(t, "sequence")
		again, err := events.ParseSequence(s.String())
		if err != nil || again != s || !sequenceForm.MatchString(s.String()) {
			t.Errorf("%+v becomes %s, and that %+v, %v", s, s, again, err)
		}
		if s.IsZero() != (s == events.Sequence{}) {
			t.Errorf("IsZero of %s is %v", s, s.IsZero())
		}
	})
}

func FuzzParseSequence(f *testing.F) {
	for _, text := range []string{
		"", "0000000016B37488.0000000003", "0000000016b37488.0000000003", "0000000000000000.9999999999", "+00000000000000A.0000000001", "0000000000000_0.0000000001",
		"000000000000000000000000001", "0000000000000000.00000000001",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := events.ParseSequence(text)
		if err == nil && s.String() != text {
			t.Errorf("%q is read as %s", text, s)
		}
		if err != nil && (!errors.Is(err, events.ErrInvalid) || s != events.Sequence{}) {
			t.Errorf("%q gives %+v, %v", text, s, err)
		}
	})
}

func TestLSN(t *testing.T) {
	for text, want := range map[string]events.LSN{"0/0": 0, "0/16B37488": 0x16B37488, "16/B374D848": 0x16_B374D848, "FFFFFFFF/FFFFFFFF": 1<<64 - 1, "1/0": 1 << 32} {
		if got, err := events.ParseLSN(text); err != nil || got != want || want.String() != text {
			t.Errorf("%s is read as %d, %v, and %d written as %s", text, got, err, want, want)
		}
	}
	for _, text := range []string{"", "/", "0", "0/", "/0", "0/0/0", "1FFFFFFFF/0", "0/1FFFFFFFF", "-1/0", "x/0", " 0/0", "0x1/0"} {
		if got, err := events.ParseLSN(text); err == nil || got != 0 {
			t.Errorf("%q is read as %s", text, got)
		}
	}
}

func TestLSNsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := events.LSN(rapid.Uint64().Draw(t, "lsn"))
		if again, err := events.ParseLSN(l.String()); err != nil || again != l {
			t.Errorf("%d becomes %s, and that %d, %v", l, l, again, err)
		}
		type position struct{ LSN events.LSN }
		text, err := json.Marshal(position{l})
		if err != nil || string(text) != `{"LSN":"`+l.String()+`"}` {
			t.Errorf("the JSON of %s is %s, %v", l, text, err)
		}
		var again position
		if err := json.Unmarshal(text, &again); err != nil || again.LSN != l {
			t.Errorf("%s is read as %s, %v", text, again.LSN, err)
		}
	})
}

func FuzzParseLSN(f *testing.F) {
	f.Add("0/16B37488")
	f.Add("0/0/0")
	f.Add("+1/_2")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := events.ParseLSN(text)
		if err != nil {
			return
		}
		if again, err := events.ParseLSN(l.String()); err != nil || again != l {
			t.Errorf("%q is %s, and that %s, %v", text, l, again, err)
		}
	})
}
