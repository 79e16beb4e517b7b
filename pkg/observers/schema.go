package observers

import (
	"bytes"
	_ "embed"
)

//go:embed observers.schema.json
var schema []byte

// Schema is the JSON Schema (2020-12) of a file of observers: which keys there are and what they hold. What it can't tell,
// above all whether expressions compile, Parse does.
func Schema() []byte { return bytes.Clone(schema) }
