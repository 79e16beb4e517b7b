// Package observers holds the rules of a deployment: which events are to have which effects. It loads them from YAML,
// strictly, compiles their expressions, finds those that an event concerns, and renders the requests of their actions.
//
// A Set is one generation of rules. It is immutable and safe for concurrent use. It performs no action, and reads no
// secret: references to secrets stay references in the requests that are rendered.
package observers

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/tributary-dev/tributary/pkg/observers/expr"
	"github.com/tributary-dev/tributary/pkg/retry"
)

// Order says what an observer promises about the order of its effects for one key.
type Order string

// The orders.
const (
	OrderAttempts Order = "attempts" // first attempts begin in commit order
	OrderStrict   Order = "strict"   // none begins before those before it are settled
	OrderNone     Order = "none"
)

// WhenDead says what becomes of effects of a strict observer that wait behind one that dies.
type WhenDead string

// What becomes of them.
const (
	WhenDeadPark WhenDead = "park" // they stay until a person retries or removes the dead letter
	WhenDeadSkip WhenDead = "skip" // they go on
)

// OnFailure says what becomes of an effect that fails for good.
type OnFailure string

// What becomes of it.
const (
	OnFailureDeadLetter OnFailure = "deadletter"
	OnFailureAlert      OnFailure = "alert" // a dead letter, counted as an alert
	OnFailureLog        OnFailure = "log"   // a line in the log, and dropped
)

// Observer is one rule.
type Observer struct {
	Name      string
	Order     Order
	WhenDead  WhenDead // empty unless Order is OrderStrict
	Retry     retry.Policy
	OnFailure OnFailure
	Paused    bool      // what it is to do waits until it goes on
	DryRun    bool      // it is evaluated and rendered, and nothing is sent
	Actions   []*Action // in the order of the file

	match   matchRule
	lookups []*lookup       // before its actions
	when    *expr.Condition // nil where there is none
	spec    observerSpec
	at      string // file:line:col of its name
}

// Set is one generation of observers.
type Set struct {
	observers  []*Observer // sorted by name
	index      index
	paused     map[string]bool // by name
	source     []byte
	generation string
}

// newSet builds a set of observers with different names.
func newSet(list []*Observer) (*Set, error) {
	slices.SortFunc(list, func(a, b *Observer) int { return strings.Compare(a.Name, b.Name) })
	source, err := canonical(list)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(source)
	return &Set{
		observers:  list,
		index:      newIndex(list),
		paused:     pausedOf(list),
		source:     source,
		generation: hex.EncodeToString(sum[:])[:generationLength],
	}, nil
}

const generationLength = 16

// Generation names what the set does: sets with the same rules have the same, however these are spread over files,
// ordered, commented and formatted. It is 16 hex digits of the SHA-256 of Source.
func (s *Set) Generation() string { return s.generation }

// Source is the set as a file that Parse takes and that gives the same generation: JSON, which is YAML too, with every
// default written out. It holds references to secrets, never secrets.
func (s *Set) Source() []byte { return bytes.Clone(s.source) }

// Observers gives all observers, sorted by name.
func (s *Set) Observers() []*Observer { return slices.Clone(s.observers) }

// observerSpec is the canonical form of an observer, the keys of the YAML with every default written out.
type observerSpec struct {
	Name      string       `json:"name"`
	Match     matchSpec    `json:"match"`
	Lookup    []lookupSpec `json:"lookup,omitempty"`
	When      string       `json:"when,omitempty"`
	Order     Order        `json:"order"`
	WhenDead  WhenDead     `json:"when_dead,omitempty"`
	Retry     retry.Policy `json:"retry"`
	OnFailure OnFailure    `json:"on_failure"`
	Paused    bool         `json:"paused,omitempty"`
	DryRun    bool         `json:"dry_run,omitempty"`
	Actions   []actionSpec `json:"actions"`
}

type matchSpec struct {
	Source string   `json:"source,omitempty"`
	Entity string   `json:"entity,omitempty"`
	Ops    []string `json:"ops,omitempty"`
}

type actionSpec struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Async   bool   `json:"async,omitempty"`
	Timeout string `json:"timeout"`
	Circuit string `json:"circuit,omitempty"`

	Cache *cachedSpec `json:"cache,omitempty"`

	own any // the keys of its type, a struct
}

// MarshalJSON writes the keys of the type behind those that every action has.
func (s actionSpec) MarshalJSON() ([]byte, error) {
	type common actionSpec
	dst, err := marshal(common(s))
	if err != nil {
		return nil, err
	}
	own, err := marshal(s.own)
	if err != nil || len(own) <= len("{}") {
		return dst, err
	}
	return append(append(dst[:len(dst)-1], ','), own[1:]...), nil
}

// marshal is json.Marshal that leaves < > & as they are.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// canonical writes an observer to a line.
func canonical(list []*Observer) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(`{"observers":[`)
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	for i, o := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
		if err := encoder.Encode(o.spec); err != nil {
			return nil, fmt.Errorf("write observer %s: %w", o.Name, err)
		}
		b.Truncate(b.Len() - 1) // the line end that Encode adds
	}
	b.WriteString("\n]}\n")
	return b.Bytes(), nil
}
