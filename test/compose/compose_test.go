// Package compose checks docker-compose.yml and what it mounts, without an engine: with compose's own loader, NATS's own
// parser, and the services' own binaries.
package compose

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/tributary-dev/tributary/internal/config"
	"github.com/tributary-dev/tributary/test/harness"
)

const root = "../.."

func TestMain(m *testing.M) {
	code := m.Run()
	harness.Cleanup()
	os.Exit(code)
}

// project loads docker-compose.yml as compose does.
func project(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yml")}, cli.WithWorkingDirectory(root))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return project
}

// programs are the services that run a program of ours.
func programs(p *types.Project) map[string]types.ServiceConfig {
	ours := map[string]types.ServiceConfig{}
	for name, service := range p.Services {
		if service.Build != nil {
			ours[name] = service
		}
	}
	return ours
}

// container lays what a service mounts into a folder, as the container sees it, and gives the folder.
func container(t *testing.T, service types.ServiceConfig) string {
	t.Helper()
	dir := t.TempDir()
	for _, v := range service.Volumes {
		if v.Type != types.VolumeTypeBind {
			continue
		}
		target := filepath.Join(dir, v.Target)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(v.Source, target); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func environ(service types.ServiceConfig) []string {
	var environ []string
	for name, value := range service.Environment {
		if value != nil {
			environ = append(environ, name+"="+*value)
		}
	}
	return environ
}

// configuration is what a service of ours reads.
func configuration(t *testing.T, service types.ServiceConfig) config.Config {
	t.Helper()
	file := filepath.Join(container(t, service), "etc/tributary/tributary.yaml")
	cfg, _, err := config.Load(config.Request{Service: service.Name, Args: []string{"--config", file}, Environ: environ(service)})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestTopologyIsTheOneThatScenariosDrive(t *testing.T) {
	p := project(t)
	want := map[string]int{
		"postgres": 1, "nats-1": 1, "nats-2": 1, "nats-3": 1, "elasticsearch": 1, "ingest": 2, "worker": 3, "jobrunner": 2,
		"indexer": 1, "prometheus": 1, "grafana": 1,
	}
	for name, replicas := range want {
		service, ok := p.Services[name]
		switch {
		case !ok:
			t.Errorf("there is no service %s", name)
		case service.GetScale() != replicas:
			t.Errorf("%s runs %d times, want %d", name, service.GetScale(), replicas)
		case service.GetScale() > 1 && (len(service.Ports) > 0 || service.ContainerName != ""):
			t.Errorf("%s can't be scaled: it has a port or a name of its own", name)
		}
	}
	if len(p.Services) != len(want) {
		t.Errorf("%d services, want %d", len(p.Services), len(want))
	}
}

func TestEveryServiceTellsOfItsHealth(t *testing.T) {
	p := project(t)
	for name, service := range p.Services {
		if service.HealthCheck == nil || len(service.HealthCheck.Test) < 2 {
			t.Errorf("%s has no health check", name)
			continue
		}
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %d is open to other machines", name, port.Target)
			}
		}
		for _, word := range service.HealthCheck.Test {
			if address, err := url.Parse(word); err == nil && address.Host != "" && !servesAt(service, address.Port()) {
				t.Errorf("%s: the health check asks port %s, where nothing says that it listens", name, address.Port())
			}
		}
	}
	for name, service := range programs(p) {
		if test := []string{"CMD", service.Command[0], "--ready"}; !slices.Equal(service.HealthCheck.Test, test) {
			t.Errorf("%s: the health check is %q, want %q", name, service.HealthCheck.Test, test)
		}
	}
}

// servesAt tells whether a port is published, or the monitoring port of NATS, which nats.conf sets.
func servesAt(service types.ServiceConfig, port string) bool {
	published := func(p types.ServicePortConfig) bool { return fmt.Sprint(p.Target) == port }
	return slices.ContainsFunc(service.Ports, published) || strings.HasPrefix(service.Name, "nats-") && port == "8222"
}

func TestMountsAndDependenciesExist(t *testing.T) {
	p := project(t)
	for name, service := range p.Services {
		for _, v := range service.Volumes {
			if v.Type == types.VolumeTypeBind && !v.ReadOnly {
				t.Errorf("%s: %s could be written to by the container", name, v.Source)
			}
			if _, err := os.Stat(v.Source); v.Type == types.VolumeTypeBind && err != nil {
				t.Errorf("%s mounts what is not there: %v", name, err)
			}
		}
		for other, dependency := range service.DependsOn {
			if dependency.Condition != types.ServiceConditionHealthy {
				t.Errorf("%s does not wait until %s is healthy", name, other)
			}
		}
	}
}

func TestEveryConfigurationLoads(t *testing.T) {
	for name, service := range programs(project(t)) {
		t.Run(name, func(t *testing.T) {
			command := exec.Command(harness.Binary(t, service.Command[0]), append(service.Command[1:], "--check")...)
			command.Env = append(environ(service), "TRIBUTARY_CONFIG="+filepath.Join(container(t, service), "etc/tributary/tributary.yaml"))
			out, err := command.CombinedOutput()
			if err != nil || !strings.HasSuffix(string(out), "ok\n") {
				t.Errorf("%v:\n%s", err, out)
			}
			if grace := service.StopGracePeriod; grace == nil || configuration(t, service).ShutdownTimeout >= secondsOf(grace) {
				t.Error("the container is killed before shutdown_timeout has passed")
			}
		})
	}
}

func TestConfigurationNamesTheServicesOfTheComposition(t *testing.T) {
	p := project(t)
	worker := p.Services["worker"]
	cfg := configuration(t, worker)
	servers := strings.Split(cfg.NATS.URL, ",")
	if want := []string{"nats://nats-1:4222", "nats://nats-2:4222", "nats://nats-3:4222"}; !slices.Equal(servers, want) {
		t.Errorf("nats.url names %v, want %v", servers, want)
	}
	if cfg.NATS.Replicas != len(servers) {
		t.Errorf("nats.replicas is %d with %d servers", cfg.NATS.Replicas, len(servers))
	}
	database, err := url.Parse(*worker.Environment["SHOP_URL"])
	if err != nil {
		t.Fatal(err)
	}
	postgres := p.Services["postgres"]
	password, _ := database.User.Password()
	for what, pair := range map[string][2]string{
		"host":     {database.Hostname(), postgres.Name},
		"user":     {database.User.Username(), *postgres.Environment["POSTGRES_USER"]},
		"password": {password, *postgres.Environment["POSTGRES_PASSWORD"]},
		"database": {database.Path, "/" + *postgres.Environment["POSTGRES_DB"]},
	} {
		if pair[0] != pair[1] {
			t.Errorf("SHOP_URL has the %s %q, want %q", what, pair[0], pair[1])
		}
	}
	elastic, err := url.Parse(cfg.Indexer.Elasticsearch)
	if err != nil || elastic.Hostname() != p.Services["elasticsearch"].Name || !servesAt(p.Services["elasticsearch"], elastic.Port()) {
		t.Errorf("indexer.elasticsearch is %s, which is not in the composition", cfg.Indexer.Elasticsearch)
	}
}

func TestDatabaseOfTheCompositionCanBeMadeAndRead(t *testing.T) {
	p := project(t)
	if !slices.Contains(p.Services["postgres"].Command, "wal_level=logical") {
		t.Error("PostgreSQL has no wal_level=logical")
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy/compose/shop.sql"))
	if err != nil {
		t.Fatal(err)
	}
	s := harness.New(t, harness.Options{Schema: string(text)})
	s.Start("ingest")
	s.WaitForEvents(4, shortly)
	s.Exec(`UPDATE orders SET status = 'shipped' WHERE id = 1`)
	s.WaitForEvents(5, shortly)
}

// The image is made of what is there.
func TestImageHoldsEveryProgram(t *testing.T) {
	dockerfile, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	commands, err := filepath.Glob(filepath.Join(root, "cmd/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range commands {
		if name := filepath.Base(command); !strings.Contains(string(dockerfile), " /out/"+name+" ") {
			t.Errorf("the Dockerfile does not copy %s", name)
		}
	}
	for _, copied := range regexp.MustCompile(` /out/(\w+)`).FindAllStringSubmatch(string(dockerfile), -1) {
		if name := copied[1]; name != "state" && !slices.Contains(commands, filepath.Join(root, "cmd", name)) {
			t.Errorf("the Dockerfile copies %s, which is not in cmd", name)
		}
	}
	module, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(module))[1]
	if !strings.Contains(string(dockerfile), " golang:"+version+"-") {
		t.Errorf("the Dockerfile does not build with Go %s", version)
	}
}

func TestImageAndCompositionAgreeOnPlaces(t *testing.T) {
	dockerfile, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	place := func(variable string) string {
		found := regexp.MustCompile(variable + `=(\S+)`).FindStringSubmatch(string(dockerfile))
		if found == nil {
			t.Fatalf("the Dockerfile does not set %s", variable)
		}
		return found[1]
	}
	config, state := place("TRIBUTARY_CONFIG"), place("TRIBUTARY_STATE_DIR")
	for name, service := range programs(project(t)) {
		mounted := func(v types.ServiceVolumeConfig) bool { return v.Target == config }
		if !slices.ContainsFunc(service.Volumes, mounted) {
			t.Errorf("%s: nothing is mounted at %s, where the image looks for the configuration", name, config)
		}
		writable := func(tmpfs string) bool { return strings.HasPrefix(tmpfs, state+":uid=65532,") } // distroless's nonroot
		if service.ReadOnly && !slices.ContainsFunc(service.Tmpfs, writable) {
			t.Errorf("%s can't write its address to %s", name, state)
		}
		if service.User != "" || !strings.Contains(string(dockerfile), "\nUSER nonroot:nonroot\n") {
			t.Errorf("%s does not run as nonroot", name)
		}
	}
}

func TestWhatTheImageLeavesOutIsNotBuilt(t *testing.T) {
	ignored, err := os.ReadFile(filepath.Join(root, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command("go", "list", "-deps", "-f", "{{if .Module}}{{if .Module.Main}}{{.ImportPath}}{{end}}{{end}}", "./cmd/...")
	command.Dir = root
	out, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	for imported := range strings.FieldsSeq(string(out)) {
		folder, _, _ := strings.Cut(strings.TrimPrefix(imported, "github.com/tributary-dev/tributary/"), "/")
		if slices.Contains(strings.Fields(string(ignored)), folder) {
			t.Errorf("%s is built, and .dockerignore leaves %s out", imported, folder)
		}
	}
}
