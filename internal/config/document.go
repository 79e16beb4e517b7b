package config

import (
	"fmt"
	"io"
	"strings"
)

// Document writes every key as docs/configuration.md has it.
func Document(w io.Writer) error {
	var b strings.Builder
	b.WriteString(documentHead)
	section := "\x00"
	for _, key := range Keys() {
		if s := documentSection(key.Path); s != section {
			section = s
			title := section
			if title == "" {
				title = "top level"
			}
			fmt.Fprintf(&b, "\n## %s\n\n| key | type | default | effect |\n|---|---|---|---|\n", title)
		}
		kind := key.Type
		if key.OneOf != nil {
			kind = strings.Join(key.OneOf, " or ")
		}
		value := "none"
		if key.Default != "" {
			value = "`" + key.Default + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", key.Path, kind, value, strings.ReplaceAll(key.Help, "|", `\|`))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// documentSection is the first part of a path; keys that stand alone share the empty one.
func documentSection(path string) string {
	section, _, nested := strings.Cut(path, ".")
	if !nested {
		return ""
	}
	return strings.TrimSuffix(section, "[]")
}

const documentHead = `# Configuration

One YAML file serves all services. Later wins: the file that ` + "`--config` or `TRIBUTARY_CONFIG`" + ` names, then the variable
` + "`TRIBUTARY_<SECTION>_<KEY>`, then the flag `--<section>.<key>`" + `. Lists are separated by commas in variables and flags; the items of
` + "`sources`" + ` stand in the file alone. Relative paths are taken from the file's folder; those in variables and flags, from the working
directory. A secret is a reference, ` + "`env:NAME` or `file:PATH`" + `, read when it is needed. An unknown key or a bad value is an error that
names the key; ` + "`--check`" + ` tells without starting anything.

The smallest that works:

` + "```yaml" + `
nats: {url: nats://127.0.0.1:4222}
sources:
  - {name: shop, postgres: env:SHOP_URL, tables: [public.*]}
observers: observers.yaml
` + "```" + `

This page is written from the code (` + "`go test ./internal/config -update`" + `), and a test fails where the two differ.
`
