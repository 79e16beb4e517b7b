package app

import (
	"github.com/nats-io/nuid"

	"github.com/tributary-dev/tributary/internal/natskv"
	"github.com/tributary-dev/tributary/pkg/actions/circuit"
	"github.com/tributary-dev/tributary/pkg/events"
)

// newCircuits gives a service its circuits, which share their state with those of the others.
func newCircuits(env *environment, road *road) (*circuit.Circuits, error) {
	settings := env.config.Circuits
	options := circuit.Options{
		FailurePercent: settings.FailurePercent, MinCalls: settings.MinCalls, Window: settings.Window, OpenFor: settings.OpenFor,
		Probes: settings.Probes, Ramp: settings.Ramp, Owner: env.owner + "-" + nuid.Next(), Log: env.log, Metrics: env.circuits(),
	}
	for _, endpoint := range env.config.Endpoints {
		options.Limits = append(options.Limits, circuit.Limit{Name: endpoint.Name, Rate: endpoint.Rate, Concurrency: endpoint.Concurrency})
	}
	return circuit.New(natskv.Open(road.js, events.BucketCircuits), options)
}
