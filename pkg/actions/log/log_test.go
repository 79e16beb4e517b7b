package log_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tributary-dev/tributary/pkg/actions"
	"github.com/tributary-dev/tributary/pkg/actions/log"
)

func TestDoWritesOneLine(t *testing.T) {
	cases := map[string]struct{ body, message string }{
		"a text":                      {`"order 42 was shipped"`, "order 42 was shipped"},
		"a text with lines":           {`"one\ntwo\" level=ERROR"`, "one\ntwo\" level=ERROR"},
		"an object":                   {`{"order": 42}`, `{"order": 42}`},
		"null":                        {`null`, "null"},
		"what is no JSON":             {`order 42`, "order 42"},
		"a message without any words": {"", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			action := log.New(slog.New(slog.NewJSONHandler(&out, nil)))
			outcome, err := action.Do(t.Context(),
				actions.Effect{Key: "k", EventID: "shop-1-0-0-0", Sequence: "s", Observer: "order-shipped", Action: "note"},
				actions.Request{Body: []byte(c.body)})
			if err != nil || outcome != (actions.Outcome{}) {
				t.Fatalf("outcome is %+v, %v", outcome, err)
			}
			if n := bytes.Count(out.Bytes(), []byte("\n")); n != 1 {
				t.Errorf("%d lines were written", n)
			}
			var line map[string]string
			if err := json.Unmarshal(out.Bytes(), &line); err != nil {
				t.Fatal(err)
			}
			delete(line, "time")
			want := map[string]string{
				"level": "INFO", "msg": c.message, "observer": "order-shipped", "action": "note", "event": "shop-1-0-0-0", "sequence": "s",
			}
			if diff := cmp.Diff(want, line); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLevelIsTheRequests(t *testing.T) {
	var out bytes.Buffer
	action := log.New(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})))
	for _, level := range []string{"DEBUG", "ERROR", ""} {
		_, err := action.Do(t.Context(), actions.Effect{}, actions.Request{Method: level, Body: []byte(`"said at ` + level + `"`)})
		if err != nil {
			t.Fatal(err)
		}
	}
	got := out.String()
	if strings.Contains(got, "said at DEBUG") || !strings.Contains(got, `level=ERROR msg="said at ERROR"`) || !strings.Contains(got, `level=INFO msg="said at "`) {
		t.Errorf("got %s", got)
	}
}
