package compose

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/goccy/go-yaml"
	"github.com/nats-io/nats-server/v2/server"
)

const shortly = 30 * time.Second

func secondsOf(d *types.Duration) time.Duration { return time.Duration(*d) }

func TestServersOfNATSFindEachOther(t *testing.T) {
	p := project(t)
	names := []string{"nats-1", "nats-2", "nats-3"}
	for _, name := range names {
		service := p.Services[name]
		t.Setenv("NATS_NAME", *service.Environment["NATS_NAME"])
		file := filepath.Join(container(t, service), service.Command[slices.Index(service.Command, "--config")+1])
		options, err := server.ProcessConfigFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if options.ServerName != name {
			t.Errorf("%s calls itself %s", name, options.ServerName)
		}
		var routes []string
		for _, route := range options.Routes {
			routes = append(routes, route.Host)
		}
		var want []string
		for _, other := range names {
			want = append(want, fmt.Sprintf("%s:%d", other, options.Cluster.Port))
		}
		if !slices.Equal(routes, want) {
			t.Errorf("%s knows the routes %v, want %v", name, routes, want)
		}
		if options.Port != 4222 || options.HTTPPort != 8222 || !options.JetStream {
			t.Errorf("%s listens on %d and %d, JetStream is %v", name, options.Port, options.HTTPPort, options.JetStream)
		}
		onVolume := func(v types.ServiceVolumeConfig) bool {
			return v.Type == types.VolumeTypeVolume && v.Target == options.StoreDir && v.Source == name
		}
		if !slices.ContainsFunc(service.Volumes, onVolume) {
			t.Errorf("%s keeps its streams in %s, which is no volume of its own", name, options.StoreDir)
		}
	}
}

// scraped is what is read of prometheus.yml.
type scraped struct {
	RuleFiles     []string `yaml:"rule_files"`
	ScrapeConfigs []struct {
		Job string `yaml:"job_name"`
		DNS []struct {
			Names []string `yaml:"names"`
			Type  string   `yaml:"type"`
			Port  int      `yaml:"port"`
		} `yaml:"dns_sd_configs"`
	} `yaml:"scrape_configs"`
}

func TestPrometheusScrapesEveryService(t *testing.T) {
	p := project(t)
	dir := container(t, p.Services["prometheus"])
	var file scraped
	readYAML(t, filepath.Join(dir, "etc/prometheus/prometheus.yml"), &file)
	var jobs []string
	for _, job := range file.ScrapeConfigs {
		jobs = append(jobs, job.Job)
		service, ok := programs(p)[job.Job]
		if !ok || len(job.DNS) != 1 || !slices.Equal(job.DNS[0].Names, []string{job.Job}) {
			t.Errorf("job %s: scrapes %+v, which is no service of that name", job.Job, job.DNS)
			continue
		}
		if _, port, err := net.SplitHostPort(configuration(t, service).HTTP.Listen); err != nil || port != fmt.Sprint(job.DNS[0].Port) {
			t.Errorf("job %s: scrapes port %d, and the service listens on %s", job.Job, job.DNS[0].Port, port)
		}
	}
	for name := range programs(p) {
		if !slices.Contains(jobs, name) {
			t.Errorf("%s is not scraped", name)
		}
	}
	for _, pattern := range file.RuleFiles {
		if found, err := filepath.Glob(filepath.Join(dir, pattern)); err != nil || len(found) == 0 {
			t.Errorf("rule_files: %s finds nothing (%v)", pattern, err)
		}
	}
}

func TestGrafanaFindsItsDashboardsAndSource(t *testing.T) {
	p := project(t)
	grafana := p.Services["grafana"]
	dir := container(t, grafana)
	var sources struct {
		Datasources []struct{ UID, Type, URL string }
	}
	readYAML(t, filepath.Join(dir, "etc/grafana/provisioning/datasources/prometheus.yaml"), &sources)
	if len(sources.Datasources) != 1 || sources.Datasources[0].UID != dataSource || sources.Datasources[0].URL != "http://prometheus:9090" {
		t.Errorf("the sources are %+v", sources)
	}
	var dashboards struct {
		Providers []struct{ Options struct{ Path string } }
	}
	readYAML(t, filepath.Join(dir, "etc/grafana/provisioning/dashboards/tributary.yaml"), &dashboards)
	home := *grafana.Environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
	if len(dashboards.Providers) != 1 || !strings.HasPrefix(home, dashboards.Providers[0].Options.Path) {
		t.Errorf("the providers are %+v", dashboards)
	}
	if _, err := os.Stat(filepath.Join(dir, home)); err != nil {
		t.Errorf("the home dashboard: %v", err)
	}
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
