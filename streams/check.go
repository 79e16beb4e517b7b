package streams

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"
)

// Finding is how one stream or bucket stands against its settings.
type Finding struct {
	Stream      string
	Info        *jetstream.StreamInfo // nil where it is missing
	Differences []string              // settings that Apply would change
	Fixed       []string              // settings that Apply can't change, and why
}

// Check compares what is there with the settings, and changes nothing. It takes what Apply takes, and gives a finding
// for each stream, in the order in which Apply makes them.
func Check(ctx context.Context, js jetstream.JetStream, options Options) ([]Finding, error) {
	if err := options.check(); err != nil {
		return nil, err
	}
	a := applier{js: js, options: options}
	applied := Applied{MaxPayload: js.Conn().MaxPayload()}
	applied.InboxMax = applied.MaxPayload / 2
	var findings []Finding
	for _, name := range names {
		want, err := load(name)
		if err != nil {
			return nil, err
		}
		a.override(want, applied)
		f := Finding{Stream: want.name()}
		stream, err := js.Stream(ctx, want.name())
		if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return nil, fmt.Errorf("look at stream %s: %w", want.name(), err)
		}
		if err == nil {
			f.Info = stream.CachedInfo()
			if err := f.compare(want); err != nil {
				return nil, err
			}
		}
		findings = append(findings, f)
	}
	return findings, nil
}

func (f *Finding) compare(want settings) error {
	has, err := settingsOf(f.Info.Config)
	if err != nil {
		return err
	}
	for _, d := range diff(has, want) {
		if why := d.fixed(); why != "" {
			f.Fixed = append(f.Fixed, d.String()+": "+why)
		} else {
			f.Differences = append(f.Differences, d.String())
		}
	}
	return nil
}
