package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"github.com/tributary-dev/tributary/internal/generations"
	"github.com/tributary-dev/tributary/pkg/observers"
)

type observersSchemaCommand struct{}

// Help is shown below the flags.
func (observersSchemaCommand) Help() string {
	return `Editors complete and check files of observers by it: put it beside them, and in the first line of each write
# yaml-language-server: $schema=observers.schema.json

Examples:
  tributary observers schema > observers.schema.json`
}

// Run prints the schema.
func (observersSchemaCommand) Run(in *Invocation) error {
	_, err := in.Stdout.Write(observers.Schema())
	return err
}

type observersDiffCommand struct {
	Path string `arg:"" optional:"" name:"file" help:"A file or folder; the configured one if none is given."`
}

// Help is shown below the flags.
func (observersDiffCommand) Help() string {
	return `Compares a file with the generation that was applied last: which observers are new, gone, or other, and which of
their keys. An observer or action that gets another name is a new one: its effects may happen once more, which is
told. With -o json: {n, in_force, generation, changed, added[], removed[], altered[{observer, keys[{key, from, to}]}],
warnings[]}.

Examples:
  tributary observers diff observers.yaml
  tributary observers diff --config tributary.yaml -o json | jq '.altered[].observer'`
}

// difference is what a file would change of the observers in force.
type difference struct {
	Number     uint64        `json:"n"`
	InForce    string        `json:"in_force,omitempty"` // empty where none has been applied
	Generation string        `json:"generation"`
	Changed    bool          `json:"changed"`
	Added      []string      `json:"added"`
	Removed    []string      `json:"removed"`
	Altered    []alteredRule `json:"altered"`
	Warnings   []string      `json:"warnings"`
}

type alteredRule struct {
	Observer string       `json:"observer"`
	Keys     []alteredKey `json:"keys"`
}

// alteredKey is one key of the canonical form; From and To are absent where it is not there.
type alteredKey struct {
	Key  string          `json:"key"`
	From json.RawMessage `json:"from,omitempty"`
	To   json.RawMessage `json:"to,omitempty"`
}

// Run compares.
func (c *observersDiffCommand) Run(in *Invocation) error {
	path := c.Path
	if path == "" {
		path = in.Config.Observers
	}
	if path == "" {
		return usage("name a file or folder of observers, or configure the key observers")
	}
	set, err := observers.Load(path)
	if err != nil {
		return err
	}
	return in.look(func(ctx context.Context, d *deployment) error {
		before, current, err := generations.Open(d.JS).Load(ctx)
		none := errors.Is(err, generations.ErrNone) || errors.Is(err, generations.ErrDamaged)
		if none {
			before, err = observers.Parse("none", []byte("observers: []\n"))
		}
		if err != nil {
			return err
		}
		result, err := differ(before, set)
		if err != nil {
			return err
		}
		result.Number, result.Changed = current.Number, none || before.Generation() != set.Generation()
		if !none {
			result.InForce = before.Generation()
		}
		if in.wantsJSON() {
			return in.json(result)
		}
		return result.show(in.text())
	})
}

func differ(before, after *observers.Set) (*difference, error) {
	coarse, err := compare(before, after)
	if err != nil {
		return nil, err
	}
	old, err := canonical(before)
	if err != nil {
		return nil, err
	}
	present, err := canonical(after)
	if err != nil {
		return nil, err
	}
	result := &difference{
		Generation: after.Generation(), Added: coarse.Added, Removed: coarse.Removed, Altered: []alteredRule{}, Warnings: coarse.Warnings,
	}
	for _, name := range coarse.Altered {
		was, is, err := keysOf(old[name], present[name])
		if err != nil {
			return nil, err
		}
		rule := alteredRule{Observer: name, Keys: []alteredKey{}}
		names := maps.Clone(was)
		maps.Copy(names, is)
		for _, key := range slices.Sorted(maps.Keys(names)) {
			if !bytes.Equal(was[key], is[key]) {
				rule.Keys = append(rule.Keys, alteredKey{key, was[key], is[key]})
			}
		}
		result.Altered = append(result.Altered, rule)
	}
	return result, nil
}

// keysOf gives the keys of two observers; of actions and lookups one for each, by name: actions.tell.url.
func keysOf(texts ...json.RawMessage) (was, is map[string]json.RawMessage, err error) {
	flat := make([]map[string]json.RawMessage, 0, len(texts))
	for _, text := range texts {
		var keys map[string]json.RawMessage
		if err := json.Unmarshal(text, &keys); err != nil {
			return nil, nil, err
		}
		for _, list := range []string{"actions", "lookup"} {
			var items []map[string]json.RawMessage
			if len(keys[list]) > 0 {
				if err := json.Unmarshal(keys[list], &items); err != nil {
					return nil, nil, err
				}
			}
			delete(keys, list)
			for _, item := range items {
				var name string
				if err := json.Unmarshal(item["name"], &name); err != nil {
					return nil, nil, err
				}
				for key, value := range item {
					keys[list+"."+name+"."+key] = value
				}
			}
		}
		flat = append(flat, keys)
	}
	return flat[0], flat[1], nil
}

func (d *difference) show(p *printer) error {
	for _, name := range d.Added {
		p.line("+ %s", name)
	}
	for _, name := range d.Removed {
		p.line("- %s", name)
	}
	for _, rule := range d.Altered {
		p.line("~ %s", rule.Observer)
		for _, key := range rule.Keys {
			if key.From != nil {
				p.hang("    - ", "      ", key.Key+": "+string(key.From))
			}
			if key.To != nil {
				p.hang("    + ", "      ", key.Key+": "+string(key.To))
			}
		}
	}
	for _, warning := range d.Warnings {
		p.hang("warning: ", "         ", warning)
	}
	switch {
	case !d.Changed:
		p.line("Generation %s is in force, number %d: nothing differs.", d.Generation, d.Number)
	case d.InForce == "":
		p.line("No observers are in force; these are generation %s.", d.Generation)
	default:
		p.line("Generation %s is in force, number %d.", d.InForce, d.Number)
		p.line("These are generation %s.", d.Generation)
	}
	return p.err
}
