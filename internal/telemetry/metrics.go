package telemetry

import (
	"fmt"
	"reflect"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// NewRegistry makes a registry with the metrics of the Go runtime and of the process, and tributary_build_info.
func NewRegistry(service, version string) *prometheus.Registry {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "tributary_build_info",
		Help:        "1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"service": service, "version": version, "go": runtime.Version()},
	})
	build.Set(1)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), build)
	return registry
}

// Register registers every collector among the exported fields of a struct, or of what metrics points to. It errors where one
// is nil or its name is taken.
func Register(to prometheus.Registerer, metrics any) error {
	v := reflect.Indirect(reflect.ValueOf(metrics))
	if v.Kind() != reflect.Struct {
		return fmt.Errorf("register metrics: %T is no struct", metrics)
	}
	collector := reflect.TypeFor[prometheus.Collector]()
	for field, value := range v.Fields() {
		if !field.IsExported() || !field.Type.Implements(collector) {
			continue
		}
		if nillable(value.Kind()) && value.IsNil() {
			return fmt.Errorf("register metrics: %s.%s is nil", v.Type(), field.Name)
		}
		if err := to.Register(value.Interface().(prometheus.Collector)); err != nil {
			return fmt.Errorf("register metrics: %s.%s: %w", v.Type(), field.Name, err)
		}
	}
	return nil
}

func nillable(kind reflect.Kind) bool { return kind == reflect.Interface || kind == reflect.Pointer }
