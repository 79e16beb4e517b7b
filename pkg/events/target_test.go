package events_test

import (
	"strings"
	"testing"

	"github.com/tributary-dev/tributary/pkg/events"
)

func TestCheckTarget(t *testing.T) {
	tests := map[string]struct {
		subject string
		ok      bool
	}{
		"a subject of somebody else":            {"orders.shipped.eu%2Fwest", true},
		"applications' own way in":              {"publish.web.cart.paid", true},
		"a word that an own one begins with":    {"eventsource.a", true},
		"a dollar within":                       {"a.$JS", true},
		"the longest":                           {strings.Repeat("a", 1024), true},
		"one byte more":                         {strings.Repeat("a", 1025), false},
		"nothing":                               {"", false},
		"events":                                {"events.000.shop.public.orders.insert", false},
		"positions":                             {"positions.shop", false},
		"tickets":                               {"jobs.ready.default", false},
		"dead letters":                          {"deadletters.permanent.a.b", false},
		"the server's interface":                {"$JS.API.STREAM.DELETE.EVENTS", false},
		"a bucket":                              {"$KV.dedup.a", false},
		"an answer to somebody":                 {"_INBOX.abc", false},
		"a wildcard of one token":               {"a.*", false},
		"a wildcard of all":                     {"a.>", false},
		"a blank":                               {"a b", false},
		"a line end, which would end a command": {"a\r\nPUB b 0", false},
		"an empty token":                        {"a..b", false},
		"an empty last token":                   {"a.", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if err := events.CheckTarget(test.subject); (err == nil) != test.ok {
				t.Errorf("CheckTarget(%q) = %v", test.subject, err)
			}
		})
	}
}
