package expr

import (
	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// The functions of updates.
const (
	fnChanged     = "changed"
	fnChangedTo   = "changed_to"
	fnChangedFrom = "changed_from"
)

// changedFunctions declares changed(field), changed_to(field, value) and changed_from(field, value). They are bound
// to the event at each evaluation.
func changedFunctions() []cel.EnvOption {
	overload := func(name string, args ...*cel.Type) cel.EnvOption {
		return cel.Function(name, cel.Overload(name+"_field", args, cel.BoolType, cel.LateFunctionBinding()))
	}
	return []cel.EnvOption{
		overload(fnChanged, cel.StringType),
		overload(fnChangedTo, cel.StringType, cel.DynType),
		overload(fnChangedFrom, cel.StringType, cel.DynType),
	}
}

// changed tells whether an update gave field another value. It is false for every other operation, and an error where
// it can't be known: the old row was not sent whole, or the table has no such column.
func (in *Input) changed(field ref.Val) ref.Val {
	name, ok := field.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(field)
	}
	row, ok, err := in.row()
	switch {
	case err != nil:
		return types.WrapErr(err)
	case !ok || in.fields.Op != "update":
		return types.False
	case row["oversize"] == types.True:
		return types.NewErr("changed(%q): the event was too large to hold its row: its images are in the dead letters", string(name))
	}
	list, known := row["changed"].([]any)
	if !known {
		return types.NewErr("changed(%q): the old row was not sent whole: ALTER TABLE %s REPLICA IDENTITY FULL",
			string(name), tableOf(row))
	}
	for _, column := range list {
		if column == name {
			return types.True
		}
	}
	if !hasColumn(row[varAfter], string(name)) && !hasColumn(row[varBefore], string(name)) {
		return types.NewErr("changed(%q): %s has no such column", string(name), tableOf(row))
	}
	return types.False
}

// changedBeside tells whether field changed and equals value in the image, which is before or after.
func (in *Input) changedBeside(image string, field, value ref.Val) ref.Val {
	changed := in.changed(field)
	if changed != types.True {
		return changed
	}
	row, _, _ := in.row()
	columns, _ := row[image].(map[string]any)
	name, _ := field.(types.String)
	is, ok := columns[string(name)]
	if !ok {
		return types.NewErr("%s.%s is not in the event", image, string(name))
	}
	return equal(types.DefaultTypeAdapter.NativeToValue(is), value)
}

func hasColumn(image any, name string) bool {
	columns, _ := image.(map[string]any)
	_, ok := columns[name]
	return ok
}

func tableOf(row map[string]any) string {
	schema, _ := row["schema"].(types.String)
	table, _ := row["table"].(types.String)
	return string(schema) + "." + string(table)
}
