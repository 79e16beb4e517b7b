package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/user"
	"slices"

	"github.com/tributary-dev/tributary/internal/generations"
	"github.com/tributary-dev/tributary/pkg/observers"
)

type observersApplyCommand struct {
	Path   string `arg:"" help:"A file or folder."`
	DryRun bool   `help:"Change nothing, only tell what would change."`
}

// Help is shown below the flags.
func (observersApplyCommand) Help() string {
	return `All observers that are in force are replaced by these, at once, on every worker whose configuration has no key
observers. They see what is stored from then on. An observer or action that gets another name is a new one: the
same events may have its effects once more, which is told.

With -o json: {dry_run, changed, n, generation, added[], removed[], altered[], warnings[]}; n counts the
generations.

Examples:
  tributary observers apply observers.yaml --dry-run
  tributary observers apply observers/ --config tributary.yaml`
}

// applied is what becomes of the observers in force.
type applied struct {
	DryRun     bool     `json:"dry_run"`
	Changed    bool     `json:"changed"`
	Number     uint64   `json:"n"`
	Generation string   `json:"generation"`
	Added      []string `json:"added"`
	Removed    []string `json:"removed"`
	Altered    []string `json:"altered"`
	Warnings   []string `json:"warnings"`
}

// Run applies observers.
func (c *observersApplyCommand) Run(in *Invocation) error {
	set, err := observers.Load(c.Path)
	if err != nil {
		return err
	}
	return in.look(func(ctx context.Context, d *deployment) error {
		store := generations.Open(d.JS)
		before, current, err := store.Load(ctx)
		if errors.Is(err, generations.ErrNone) || errors.Is(err, generations.ErrDamaged) {
			before, err = observers.Parse("none", []byte("observers: []\n"))
		}
		if err != nil {
			return err
		}
		result, err := compare(before, set)
		if err != nil {
			return err
		}
		result.DryRun, result.Changed = c.DryRun, current.Generation != set.Generation()
		result.Warnings = append(result.Warnings, partialRows(ctx, in, set)...)
		if !c.DryRun {
			if current, result.Changed, err = store.Apply(ctx, set, whoIsThis()); err != nil {
				return err
			}
			if configured := in.Config.Observers; configured != "" {
				result.Warnings = append(result.Warnings, "the configuration names "+configured+": workers that run with it do not heed what is applied")
			}
		}
		result.Number, result.Generation = current.Number, set.Generation()
		if in.wantsJSON() {
			return in.json(result)
		}
		return result.show(in.text())
	})
}

// partialRows tells which tables lack the old rows that observers ask for, of the databases that answer.
func partialRows(ctx context.Context, in *Invocation, set *observers.Set) []string {
	var warnings []string
	if !slices.ContainsFunc(set.Observers(), (*observers.Observer).AsksForChange) {
		return nil
	}
	for _, source := range in.Config.Sources {
		x := &examination{in: in, rules: set}
		x.postgres(ctx, nil, source)
		for _, c := range x.checks {
			if c.Result == fails && (c.Check == checkIdentity || c.Check == checkDatabase) {
				warnings = append(warnings, c.Area+": "+c.Detail+": "+c.Remedy)
			}
		}
	}
	return warnings
}

func whoIsThis() string {
	name := "somebody"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

func (a *applied) show(p *printer) error {
	for _, part := range []struct {
		sign  string
		names []string
	}{{"+", a.Added}, {"-", a.Removed}, {"~", a.Altered}} {
		for _, name := range part.names {
			p.line("%s %s", part.sign, name)
		}
	}
	for _, warning := range a.Warnings {
		p.hang("warning: ", "         ", warning)
	}
	switch {
	case !a.Changed:
		p.line("Generation %s is in force already.", a.Generation)
	case a.DryRun:
		p.line("Generation %s would be put in force.", a.Generation)
	default:
		p.line("Generation %s is in force, number %d.", a.Generation, a.Number)
	}
	return p.err
}

// compare tells what a new set changes.
func compare(before, after *observers.Set) (*applied, error) {
	old, err := canonical(before)
	if err != nil {
		return nil, err
	}
	present, err := canonical(after)
	if err != nil {
		return nil, err
	}
	result := &applied{Added: []string{}, Removed: []string{}, Altered: []string{}, Warnings: []string{}}
	for _, name := range slices.Sorted(maps.Keys(present)) {
		switch was, there := old[name]; {
		case !there:
			result.Added = append(result.Added, name)
		case !bytes.Equal(was, present[name]):
			result.Altered = append(result.Altered, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old)) {
		if _, there := present[name]; !there {
			result.Removed = append(result.Removed, name)
		}
	}
	if len(result.Added) > 0 && len(result.Removed) > 0 {
		result.Warnings = append(result.Warnings, fmt.Sprintf("observers are gone (%s) and new (%s): one that only got another name has its effects "+
			"once more, for events that are delivered again", few(result.Removed), few(result.Added)))
	}
	for _, name := range result.Altered {
		gone, added := actionNames(before, name), actionNames(after, name)
		gone, added = without(gone, added), without(added, gone)
		if len(gone) > 0 && len(added) > 0 {
			result.Warnings = append(result.Warnings, fmt.Sprintf("%s: actions are gone (%s) and new (%s): one that only got another name has its "+
				"effects once more, for events that are delivered again", name, few(gone), few(added)))
		}
	}
	return result, nil
}

func canonical(set *observers.Set) (map[string]json.RawMessage, error) {
	var source struct{ Observers []json.RawMessage }
	if err := json.Unmarshal(set.Source(), &source); err != nil {
		return nil, fmt.Errorf("read the canonical form of observers: %w", err)
	}
	byName := make(map[string]json.RawMessage, len(source.Observers))
	for i, o := range set.Observers() {
		byName[o.Name] = source.Observers[i]
	}
	return byName, nil
}

func actionNames(set *observers.Set, observer string) []string {
	var names []string
	for _, o := range set.Observers() {
		if o.Name != observer {
			continue
		}
		for _, a := range o.Actions {
			names = append(names, a.Name)
		}
	}
	return names
}

func without(list, others []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(name string) bool { return slices.Contains(others, name) })
}
