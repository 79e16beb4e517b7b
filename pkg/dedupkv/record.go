package dedupkv

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/tributary-dev/tributary/pkg/events"
)

// Result says how an effect was settled.
type Result string

// The results.
const (
	Done    Result = "done"    // it took effect
	Handed  Result = "handed"  // it is a job now
	Dead    Result = "dead"    // it is a dead letter, or was dropped as its observer wants
	Skipped Result = "skipped" // there was nothing to do
)

// record is what a key holds: {"v":1,"result":…,"begun":…,"worker":…,"pin":…,"generation":…}, without what is empty.
// Every effect writes it three times, so it is written by hand; it is read only where a claim meets another.
type record struct {
	result     Result // empty while the effect is not settled
	begun      int
	worker     string // who began it last; empty where that was taken back
	pin        string
	generation string
}

func (r record) encode() []byte {
	dst := make([]byte, 0, 128)
	dst = append(dst, `{"v":1`...)
	dst = appendText(dst, `,"result":`, string(r.result))
	if r.begun > 0 {
		dst = append(dst, `,"begun":`...)
		dst = strconv.AppendInt(dst, int64(r.begun), 10)
	}
	dst = appendText(dst, `,"worker":`, r.worker)
	dst = appendText(dst, `,"pin":`, r.pin)
	dst = appendText(dst, `,"generation":`, r.generation)
	return append(dst, '}')
}

func appendText(dst []byte, name, text string) []byte {
	if text == "" {
		return dst
	}
	dst = append(dst, name...)
	return events.AppendString(dst, text)
}

const recordVersion = 1

func decodeRecord(data []byte) (record, error) {
	var wire struct {
		V          int    `json:"v"`
		Result     Result `json:"result"`
		Begun      int    `json:"begun"`
		Worker     string `json:"worker"`
		Pin        string `json:"pin"`
		Generation string `json:"generation"`
	}
	if err := json.Unmarshal(data, &wire); err != nil {
		return record{}, fmt.Errorf("decode record: %w", err)
	}
	if wire.V != recordVersion {
		return record{}, fmt.Errorf("decode record: version %d is not %d", wire.V, recordVersion)
	}
	return record{
		result: wire.Result, begun: wire.Begun, worker: wire.Worker, pin: wire.Pin, generation: wire.Generation,
	}, nil
}
