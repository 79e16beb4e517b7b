package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// Request says for whom the configuration is read, and from where.
type Request struct {
	Service  string   // ingest, worker, …: for messages and help
	Args     []string // without the program's name
	Environ  []string // NAME=value, as os.Environ gives them
	Require  []string // what the service can't do without: "nats" that nats.url is set, "sources" that their databases are known
	Modes    []string // flags that ask for something else than a run, such as --check; Load tells which was given
	PassRest bool     // arguments that are not of the configuration are given back, --help among them; otherwise they are a UsageError
}

// ErrHelp is what Load gives for --help or -h: the caller prints Help and exits with status 0.
var ErrHelp = errors.New("help was asked for")

// UsageError is a wrong command line: exit status 2.
type UsageError struct{ Message string }

func (e *UsageError) Error() string { return e.Message }

// Load reads the file that --config or TRIBUTARY_CONFIG names, if any, then the variables TRIBUTARY_<SECTION>_<KEY>, then the
// flags --<section>.<key>; later ones win. The Config is complete and valid, or the error tells everything that is wrong.
// Relative paths are taken from the folder of the file, those in variables and flags from the working directory. The second
// result is what is left of Args: the mode that was asked for, or, with Request.PassRest, what is not of the configuration.
func Load(r Request) (Config, []string, error) {
	flags, rest, err := parseFlags(r)
	if err != nil {
		return Config{}, nil, err
	}
	env := environment(r.Environ)
	c := Config{origins: map[string]string{}}
	setDefaults(reflect.ValueOf(&c).Elem())
	name := env.values[variablePrefix+"CONFIG"]
	if flags.file != "" {
		name = flags.file
	}
	dir := "."
	if name != "" {
		dir = filepath.Dir(name)
		text, err := os.ReadFile(name)
		if err != nil {
			return Config{}, nil, fmt.Errorf("read the configuration: %w", err)
		}
		if err := decode(&c, name, text); err != nil {
			return Config{}, nil, err
		}
	}
	if err := errors.Join(env.apply(&c), flags.apply(&c)); err != nil {
		return Config{}, nil, err
	}
	if err := c.complete(dir, env.lookup); err != nil {
		return Config{}, nil, err
	}
	if err := errors.Join(c.Validate(), c.require(r)); err != nil {
		return Config{}, nil, err
	}
	return c, rest, nil
}

// complete fills in what depends on other keys, and what depends on where the file is.
func (c *Config) complete(dir string, lookup func(string) (string, bool)) error {
	for i := range c.Sources {
		source := &c.Sources[i]
		source.Postgres = source.Postgres.from(dir, lookup)
		source.MaskKey = source.MaskKey.from(dir, lookup)
		if source.Slot == "" {
			source.Slot = "tributary_" + source.Name
		}
		if source.Publication == "" {
			source.Publication = "tributary_" + source.Name
		}
	}
	if c.origins["state_dir"] == "" {
		c.StateDir = filepath.Join(dir, c.StateDir)
	}
	for _, secret := range []*Secret{&c.Indexer.Password, &c.Indexer.APIKey} {
		*secret = secret.from(dir, lookup)
	}
	paths := []*string{&c.StateDir, &c.Observers, &c.NATS.Credentials, &c.Indexer.Dir, &c.Indexer.CAFile}
	for i := range c.Actions.TLS {
		rule := &c.Actions.TLS[i]
		paths = append(paths, &rule.CA, &rule.Cert, &rule.Key)
	}
	for _, path := range paths {
		if *path == "" {
			continue
		}
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return fmt.Errorf("find the working directory: %w", err)
		}
		*path = absolute
	}
	return nil
}

// require checks what a service can't do without.
func (c *Config) require(r Request) error {
	var errs []error
	for _, section := range r.Require {
		switch section {
		case "nats":
			if c.NATS.URL == "" {
				errs = append(errs, c.fault("nats.url", "must be set: write nats: {url: nats://127.0.0.1:4222} in the file that --config names, or set TRIBUTARY_NATS_URL"))
			}
		case "sources":
			if len(c.Sources) == 0 && !c.Ingest.Inbox {
				errs = append(errs, c.fault("sources", "must name a database, or ingest.inbox must be true: there is nothing to read"))
			}
			for i, source := range c.Sources {
				if source.Postgres.check() != nil {
					continue // Validate has told
				}
				if _, err := source.Postgres.Resolve(); err != nil {
					errs = append(errs, c.fault(fmt.Sprintf("sources[%d].postgres", i), err.Error()))
				}
			}
		default:
			panic("config: nothing can require " + section)
		}
	}
	return errors.Join(errs...)
}

// fault makes the error of a key, with the place its value came from, or that of the item it is missing in.
func (c *Config) fault(path, message string) error {
	item, _, _ := strings.Cut(path, "].")
	for _, at := range []string{path, item + "]"} {
		if origin := c.origins[at]; origin != "" {
			return fmt.Errorf("%s: %s %s", origin, path, message)
		}
	}
	return fmt.Errorf("%s %s", path, message)
}

// override sets the leaf with a path from a line of text.
func (c *Config) override(path, line, origin string) error {
	all := leaves(c)
	i := slices.IndexFunc(all, func(l leaf) bool { return l.path == path })
	if i < 0 {
		panic("config: no key " + path)
	}
	if err := setFromLine(all[i].value, line); err != nil {
		return fmt.Errorf("%s: %s must be %w", origin, path, err)
	}
	c.origins[path] = origin
	return nil
}

const variablePrefix = "TRIBUTARY_"

// variables are the environment.
type variables struct{ values map[string]string }

func environment(environ []string) variables {
	values := make(map[string]string, len(environ))
	for _, line := range environ {
		name, value, _ := strings.Cut(line, "=")
		values[name] = value
	}
	return variables{values}
}

func (v variables) lookup(name string) (string, bool) {
	value, ok := v.values[name]
	return value, ok
}

// apply overrides c with what is set and not empty. A name that begins like a section's, and is no key's, is an error; other
// names are not ours.
func (v variables) apply(c *Config) error {
	paths := map[string]string{}
	for _, key := range Keys() {
		if name := key.Variable(); name != "" {
			paths[name] = key.Path
		}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(v.values)) {
		if v.values[name] == "" || !strings.HasPrefix(name, variablePrefix) {
			continue
		}
		path, known := paths[name]
		switch {
		case known:
			errs = append(errs, c.override(path, v.values[name], name))
		case sectionOf(name) == "sources":
			errs = append(errs, fmt.Errorf("%s: sources are a list, which no variable can set; write them in the file that --config names", name))
		case sectionOf(name) != "":
			errs = append(errs, fmt.Errorf("%s: no key of %s has this variable%s", name, sectionOf(name), didYouMean(name, slices.Sorted(maps.Keys(paths)))))
		}
	}
	return errors.Join(errs...)
}

// sectionOf gives the section that a variable's name begins with, or "".
func sectionOf(variable string) string {
	for field := range reflect.ValueOf(Config{}).Fields() {
		name := field.Tag.Get("key")
		if name != "" && typeName(field.Type) == "" && strings.HasPrefix(variable+"_", variablePrefix+strings.ToUpper(name)+"_") {
			return name
		}
	}
	return ""
}

func didYouMean(name string, candidates []string) string {
	if like := nearest(name, candidates); like != "" {
		return "; did you mean " + like + "?"
	}
	return "; --help lists all"
}
