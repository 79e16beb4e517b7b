package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"

	"github.com/tributary-dev/tributary/internal/config"
	"github.com/tributary-dev/tributary/pkg/checkpoint"
	"github.com/tributary-dev/tributary/pkg/events"
	"github.com/tributary-dev/tributary/pkg/ingest"
)

// source finds a source of the configuration.
func (in *Invocation) source(name string) (config.Source, error) {
	var names []string
	for _, s := range in.Config.Sources {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	if len(names) == 0 {
		return config.Source{}, usage("the sources are in the configuration: say where with --config FILE")
	}
	return config.Source{}, usage("there is no source %q in the configuration; there is %s", name, strings.Join(names, ", "))
}

// mirrorOf opens the mirror in a source's database, and gives its address. The caller closes the mirror.
func mirrorOf(source config.Source) (store *checkpoint.Store, url string, err error) {
	url, err = source.Postgres.Resolve()
	if err != nil {
		return nil, "", fmt.Errorf("source %s: postgres %w", source.Name, err)
	}
	store, err = checkpoint.New(url, checkpoint.Options{Name: "tributary-cli", Timeout: connectWithin})
	if err != nil {
		return nil, "", fmt.Errorf("source %s: postgres: %w", source.Name, err)
	}
	return store, url, nil
}

// known is what the mirror has of a source, as a position; zero where it has nothing.
func known(ctx context.Context, store *checkpoint.Store, source string) (ingest.Position, error) {
	saved, err := store.Get(ctx, source)
	if errors.Is(err, checkpoint.ErrNotFound) {
		return ingest.Position{}, nil
	}
	if err != nil {
		return ingest.Position{}, err
	}
	return ingest.Position{
		Epoch: saved.Epoch, Incarnation: saved.Incarnation, SystemID: saved.SystemID, Timeline: saved.Timeline, Slot: saved.Slot,
		Phase: ingest.Phase(saved.Phase), CommitLSN: saved.Commit, Index: saved.Index, EndLSN: saved.End, Leader: saved.Leader, Time: saved.At,
	}, nil
}

// tell writes a position that was set by hand into the mirror. EVENTS has it already, and is what counts.
func tell(ctx context.Context, store *checkpoint.Store, source string, p ingest.Position, who, why string) error {
	err := store.Set(ctx, checkpoint.Checkpoint{
		Source: source, Epoch: p.Epoch, Incarnation: p.Incarnation, SystemID: p.SystemID, Timeline: p.Timeline, Slot: p.Slot,
		Phase: string(p.Phase), Commit: p.CommitLSN, Index: p.Index, End: p.EndLSN, Leader: who,
	}, why)
	if errors.Is(err, checkpoint.ErrNotFound) { // there is no mirror
		return nil
	}
	return err
}

// bounded bounds one step of a command that has several, with a person's answer between.
func (in *Invocation) bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(in.Ctx, answerWithin)
}

// placeText is a place for people.
func placeText(commit events.LSN, index uint32, end events.LSN) string {
	return fmt.Sprintf("%s, index %d, and all that commits before %s", commit, index, end)
}

// who names the person at the keyboard, for the record.
func who() string {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return name + "@" + host
}

// confirmed asks before what can't be taken back, unless --yes was given.
func (in *Invocation) confirmed(yes bool, question string) error {
	if yes {
		return nil
	}
	if in.wantsJSON() {
		return usage("nothing was changed: give --yes beside -o json")
	}
	p := in.text()
	p.line("%s Type yes to go on:", question)
	if p.err != nil {
		return p.err
	}
	answer, err := bufio.NewReader(in.Stdin).ReadString('\n')
	if strings.TrimSpace(answer) == "yes" {
		return nil
	}
	if err != nil && answer == "" {
		return usage("nobody said yes, and nothing was changed: give --yes where nobody can be asked")
	}
	return errors.New("not confirmed: nothing was changed")
}
