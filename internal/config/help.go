package config

import (
	"fmt"
	"io"
	"strings"
)

const helpWidth = 100

// Help writes the usage of a service: how it is called, and every key.
func Help(w io.Writer, service, summary string) error {
	var b strings.Builder
	fmt.Fprintf(&b, `%[1]s: %[2]s

Usage: %[1]s [--config FILE] [--SECTION.KEY VALUE ...]

Examples:
  %[1]s --config tributary.yaml
  %[1]s --config tributary.yaml --log.format json --http.listen 0.0.0.0:9090
  TRIBUTARY_NATS_URL=nats://nats:4222 %[1]s --config tributary.yaml

Flags:
  --config FILE    the YAML file; also TRIBUTARY_CONFIG
  --check          read the configuration and what it names, such as observers; no run
  --ready          ask the service that runs with this configuration whether it is ready
  --help           this text

Every key below can be a flag (--worker.concurrency 8) and a variable
(TRIBUTARY_WORKER_CONCURRENCY=8), but for those of sources[]. A flag wins over a variable, and a
variable over the file. Lists are separated by commas. Relative paths in the file are taken from its
folder, others from the working directory.

Keys:
`, service, summary)
	for _, key := range Keys() {
		kind := key.Type
		if key.OneOf != nil {
			kind = strings.Join(key.OneOf, "|")
		}
		fmt.Fprintf(&b, "  %s (%s)", key.Path, kind)
		if key.Default != "" {
			fmt.Fprintf(&b, ", default %s", key.Default)
		}
		b.WriteString("\n")
		wrap(&b, key.Help, "      ")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// wrap writes words in lines that are no longer than helpWidth.
func wrap(b *strings.Builder, text, indent string) {
	line := indent
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > helpWidth && line != indent {
			b.WriteString(line + "\n")
			line = indent
		}
		if line != indent {
			line += " "
		}
		line += word
	}
	b.WriteString(line + "\n")
}
