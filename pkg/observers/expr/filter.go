package expr

import (
	"fmt"

	"cel.dev/cel-go/cel"
)

// What a filter of a source has beside the variables of observers: most filters ask for nothing else, and then nothing is
// decoded.
const (
	varSchema = "schema"
	varTable  = "table"
)

// NewFilterEnv makes the environment of sources' filters: that of observers, and the texts schema and table, which are empty
// where the event is not of a table.
func NewFilterEnv() (*Env, error) {
	env, err := NewEnv()
	if err != nil {
		return nil, err
	}
	extended, err := env.cel.Extend(cel.Variable(varSchema, cel.StringType), cel.Variable(varTable, cel.StringType))
	if err != nil {
		return nil, fmt.Errorf("make expression environment: %w", err)
	}
	return &Env{cel: extended}, nil
}
