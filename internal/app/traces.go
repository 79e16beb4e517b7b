package app

import (
	"context"

	"github.com/tributary-dev/tributary/pkg/trace"
)

// newTraces makes the recorder of a service.
func newTraces(env *environment, road *road, kind trace.Kind, by string) (*trace.Recorder, error) {
	sample := env.config.Traces.Sample
	return trace.New(road.js, trace.Options{Kind: kind, By: by, Sample: &sample, Log: env.log, Metrics: env.traces()})
}

// recording runs a service beside its recorder, which ends after it: what becomes of the last effects is recorded too.
func recording(ctx context.Context, traces *trace.Recorder, service func(context.Context) error) error {
	recording, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		traces.Run(recording)
	}()
	err := service(ctx)
	stop()
	<-ended
	return err
}
