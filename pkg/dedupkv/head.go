package dedupkv

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tributary-dev/tributary/pkg/events"
)

// head is what key ledger.<partition> holds, without what is empty:
//
//	{"v":1,"n":7,"worker":"w","pin":"p",
//	 "reached":{"<EVENTS made>.<source>.<incarnation>":"<sequence>"},
//	 "judged":{"made":…,"spans":[{"from":100,"to":120,"generation":"…"}]},
//	 "generations":["…"],"open":"<base64>","settled":"<base64>",
//	 "segments":[{"name":"…","left":1000,"until":1763900000}]}
//
// n counts the writes of all owners, so that no two are alike. An open effect is 12 bytes of ID, how often it was begun,
// the place of its generation in two bytes, and, where the owner has not begun it, since when in four bytes; the two kinds
// lie one after the other in open and left. A settled one is the ID and a byte for the result. Key ledger.<partition>.<name>
// holds a segment: {"v":1,"settled":"<base64>"}.
type head struct {
	writes uint64
	owner  Owner
	state  state
}

const (
	openSize    = len(ID{}) + 1 + 2
	leftSize    = openSize + 4
	settledSize = len(ID{}) + 1
)

// results are the bytes of results, in places from 1 on.
var results = [...]Result{"", Done, Handed, Dead, Skipped}

func (s *state) encode(writes uint64, owner Owner) []byte {
	open := make([]byte, 0, len(s.open)*openSize)
	var left []byte
	var generations []string
	for id, b := range s.open {
		place := slices.Index(generations, b.generation)
		if place < 0 {
			place = len(generations)
			generations = append(generations, b.generation)
		}
		if b.mine {
			open = appendOpen(open, id, b, place)
		} else {
			left = appendOpen(left, id, b, place)
			left = binary.BigEndian.AppendUint32(left, uint32(b.since))
		}
	}
	settled := appendSettled(make([]byte, 0, len(s.settled)*settledSize), s.settled)

	dst := make([]byte, 0, 256+(len(open)+len(left)+len(settled))*4/3)
	dst = append(dst, `{"v":1,"n":`...)
	dst = strconv.AppendUint(dst, writes, 10)
	dst = appendText(dst, `,"worker":`, owner.Worker)
	dst = appendText(dst, `,"pin":`, owner.Pin)
	dst = appendReached(dst, s.reached)
	dst = appendJudged(dst, &s.judged)
	if len(generations) > 0 {
		dst = append(dst, `,"generations":[`...)
		for i, g := range generations {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = events.AppendString(dst, g)
		}
		dst = append(dst, ']')
	}
	dst = appendBase64(dst, `,"open":"`, open)
	dst = appendBase64(dst, `,"left":"`, left)
	dst = appendBase64(dst, `,"settled":"`, settled)
	dst = appendSegments(dst, s.segments)
	return append(dst, '}')
}

func appendOpen(dst []byte, id ID, b beginning, place int) []byte {
	dst = append(dst, id[:]...)
	dst = append(dst, byte(b.begun))
	return binary.BigEndian.AppendUint16(dst, uint16(place))
}

func appendSettled(dst []byte, settled map[ID]Result) []byte {
	for id, result := range settled {
		dst = append(dst, id[:]...)
		dst = append(dst, byte(slices.Index(results[:], result)))
	}
	return dst
}

func appendBase64(dst []byte, name string, data []byte) []byte {
	if len(data) == 0 {
		return dst
	}
	dst = append(dst, name...)
	return append(base64.StdEncoding.AppendEncode(dst, data), '"')
}

func appendReached(dst []byte, reached map[Line]events.Sequence) []byte {
	if len(reached) == 0 {
		return dst
	}
	dst = append(dst, `,"reached":`...)
	separator := byte('{')
	for line, at := range reached {
		dst = append(dst, separator, '"')
		dst = append(dst, line.text()...)
		dst = append(dst, `":"`...)
		dst = append(at.AppendText(dst), '"')
		separator = ','
	}
	return append(dst, '}')
}

func appendSegments(dst []byte, segments []*segment) []byte {
	if len(segments) == 0 {
		return dst
	}
	dst = append(dst, `,"segments":`...)
	separator := byte('[')
	for _, g := range segments {
		dst = append(dst, separator)
		dst = appendText(dst, `{"name":`, g.name)
		dst = append(dst, `,"left":`...)
		dst = strconv.AppendInt(dst, int64(g.left), 10)
		dst = append(dst, `,"until":`...)
		dst = append(strconv.AppendInt(dst, g.until, 10), '}')
		separator = ','
	}
	return append(dst, ']')
}

func encodeSegment(settled map[ID]Result) []byte {
	return append(appendBase64([]byte(`{"v":1`), `,"settled":"`, appendSettled(nil, settled)), '}')
}

func decodeSegment(data []byte) (map[ID]Result, error) {
	var wire struct {
		V       int    `json:"v"`
		Settled []byte `json:"settled"`
	}
	if err := json.Unmarshal(data, &wire); err != nil {
		return nil, err
	}
	if wire.V != recordVersion {
		return nil, fmt.Errorf("version %d is not %d", wire.V, recordVersion)
	}
	settled := make(map[ID]Result, len(wire.Settled)/settledSize)
	return settled, decodeSettled(wire.Settled, settled)
}

func decodeHead(data []byte, partition int) (head, error) {
	var wire struct {
		V           int               `json:"v"`
		N           uint64            `json:"n"`
		Worker      string            `json:"worker"`
		Pin         string            `json:"pin"`
		Reached     map[string]string `json:"reached"`
		Judged      Judged            `json:"judged"`
		Generations []string          `json:"generations"`
		Open        []byte            `json:"open"`
		Left        []byte            `json:"left"`
		Settled     []byte            `json:"settled"`
		Segments    []struct {
			Name  string `json:"name"`
			Left  int    `json:"left"`
			Until int64  `json:"until"`
		} `json:"segments"`
	}
	if err := json.Unmarshal(data, &wire); err != nil {
		return head{}, err
	}
	if wire.V != recordVersion {
		return head{}, fmt.Errorf("version %d is not %d", wire.V, recordVersion)
	}
	h := head{writes: wire.N, owner: Owner{Worker: wire.Worker, Pin: wire.Pin}, state: newState(partition)}
	h.state.judged = wire.Judged
	for text, sequence := range wire.Reached {
		line, err := parseLine(text, partition)
		if err != nil {
			return head{}, err
		}
		at, err := events.ParseSequence(sequence)
		if err != nil {
			return head{}, err
		}
		h.state.reached[line] = at
	}
	for _, g := range wire.Segments {
		h.state.segments = append(h.state.segments, &segment{name: g.Name, left: g.Left, until: g.Until})
	}
	return h, errors.Join(
		decodeOpen(wire.Open, openSize, wire.Generations, h.state.open),
		decodeOpen(wire.Left, leftSize, wire.Generations, h.state.open),
		decodeSettled(wire.Settled, h.state.settled))
}

var errShape = errors.New("entries are not whole, or name what is not there")

func decodeOpen(data []byte, size int, generations []string, open map[ID]beginning) error {
	if len(data)%size != 0 {
		return errShape
	}
	for entry := range slices.Chunk(data, size) {
		const n = len(ID{})
		place := int(binary.BigEndian.Uint16(entry[n+1:]))
		if place >= len(generations) {
			return errShape
		}
		b := beginning{begun: int(entry[n]), generation: generations[place], mine: size == openSize}
		if !b.mine {
			b.since = int64(binary.BigEndian.Uint32(entry[openSize:]))
		}
		open[ID(entry[:n])] = b
	}
	return nil
}

func decodeSettled(data []byte, settled map[ID]Result) error {
	if len(data)%settledSize != 0 {
		return errShape
	}
	for entry := range slices.Chunk(data, settledSize) {
		const n = len(ID{})
		if entry[n] == 0 || int(entry[n]) >= len(results) {
			return errShape
		}
		settled[ID(entry[:n])] = results[entry[n]]
	}
	return nil
}

// text names a line within a partition.
func (l Line) text() string {
	return strconv.FormatInt(l.Made, 36) + "." + l.Source + "." + strconv.FormatUint(l.Incarnation, 10)
}

func parseLine(text string, partition int) (Line, error) {
	made, rest, _ := strings.Cut(text, ".")
	source, incarnation, _ := strings.Cut(rest, ".")
	line := Line{Source: source, Partition: partition}
	var errMade, errIncarnation error
	line.Made, errMade = strconv.ParseInt(made, 36, 64)
	line.Incarnation, errIncarnation = strconv.ParseUint(incarnation, 10, 64)
	if errMade != nil || errIncarnation != nil {
		return Line{}, fmt.Errorf("%q is not a line", text)
	}
	return line, nil
}
