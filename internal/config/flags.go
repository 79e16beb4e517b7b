package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// flagValues are the flags of a command line that are of the configuration.
type flagValues struct {
	file  string // --config
	mode  string // one of Request.Modes
	paths []string
	lines []string // the value for each of paths
}

// parseFlags takes what is of the configuration out of the arguments.
func parseFlags(r Request) (flagValues, []string, error) {
	known := map[string]Key{}
	for _, key := range Keys() {
		if flag := key.Flag(); flag != "" {
			known[flag] = key
		}
	}
	var flags flagValues
	var rest []string
	for args := r.Args; len(args) > 0; {
		arg := args[0]
		args = args[1:]
		name, value, given := strings.Cut(arg, "=")
		key, isKey := known[name]
		switch {
		case arg == "--":
			rest = append(append(rest, arg), args...)
			args = nil
		case !r.PassRest && (arg == "--help" || arg == "-h"):
			return flagValues{}, nil, ErrHelp
		case slices.Contains(r.Modes, arg):
			if flags.mode != "" && flags.mode != arg {
				return flagValues{}, nil, usage(r, "%s and %s are two things: ask for one of them", flags.mode, arg)
			}
			flags.mode = arg
		case isKey && key.Type == "bool" && !given && (len(args) == 0 || args[0] != "true" && args[0] != "false"):
			flags.paths, flags.lines = append(flags.paths, key.Path), append(flags.lines, "true")
		case isKey || name == "--config":
			if !given {
				if len(args) == 0 {
					return flagValues{}, nil, usage(r, "%s needs a value", name)
				}
				value, args = args[0], args[1:]
			}
			if name == "--config" {
				flags.file = value
				continue
			}
			flags.paths, flags.lines = append(flags.paths, key.Path), append(flags.lines, value)
		default:
			if err := foreign(r, name, known); err != nil {
				return flagValues{}, nil, err
			}
			rest = append(rest, arg)
		}
	}
	if len(rest) > 0 && !r.PassRest {
		return flagValues{}, nil, usage(r, "%s takes flags only, got %q", r.Service, rest[0])
	}
	if flags.mode != "" {
		rest = append(rest, flags.mode)
	}
	return flags, rest, nil
}

// foreign judges an argument that is no key's flag. One with a section in its name can't be anybody else's.
func foreign(r Request, name string, known map[string]Key) error {
	section, _, dotted := strings.Cut(strings.TrimPrefix(name, "--"), ".")
	isFlag := strings.HasPrefix(name, "-") && name != "-"
	ours := isFlag && dotted && sectionOf(variablePrefix+strings.ToUpper(section)) != ""
	if !isFlag || r.PassRest && !ours {
		return nil
	}
	if section == "sources" {
		return usage(r, "%s: sources are a list, which no flag can set; write them in the file that --config names", name)
	}
	names := append([]string{"--config"}, r.Modes...)
	for flag := range known {
		names = append(names, flag)
	}
	slices.Sort(names)
	return usage(r, "%s is no flag%s", name, didYouMean(name, names))
}

func usage(r Request, format string, args ...any) error {
	return &UsageError{Message: fmt.Sprintf(format, args...)}
}

// apply overrides c. A value that a flag can't have is wrong use.
func (f flagValues) apply(c *Config) error {
	var errs []error
	for i, path := range f.paths {
		if err := c.override(path, f.lines[i], "--"+path); err != nil {
			errs = append(errs, &UsageError{Message: err.Error()})
		}
	}
	return errors.Join(errs...)
}
