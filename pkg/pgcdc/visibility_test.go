package pgcdc

import "testing"

func TestVisibilityTellsWhatAQuerySaw(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		xid  uint32
		want bool
	}{
		"before all that run":         {"100:105:100,103", 99, true},
		"running":                     {"100:105:100,103", 103, false},
		"ended between":               {"100:105:100,103", 102, true},
		"the next":                    {"100:105:100,103", 105, false},
		"later":                       {"100:105:", 2000, false},
		"before a wrap":               {"4294967290:4294967300:4294967291", 4294967295, true},
		"running before a wrap":       {"4294967290:4294967300:4294967291", 4294967291, false},
		"behind a wrap":               {"4294967290:4294967300:4294967291", 3, true},
		"the next behind a wrap":      {"4294967290:4294967300:4294967291", 4, false},
		"of an epoch":                 {"8589934600:8589934610:8589934601", 9, false},
		"of an epoch, ended":          {"8589934600:8589934610:8589934601", 8, true},
		"of an epoch, long ago ended": {"8589934600:8589934610:8589934601", 4294967000, true},
	} {
		v, err := parseVisibility(c.text)
		if err != nil {
			t.Fatal(err)
		}
		if got := v.sees(c.xid); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	for _, bad := range []string{"", "1:2", "a:2:", "3:2:", "1:2:x", "1:2:3:4"} {
		if _, err := parseVisibility(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
