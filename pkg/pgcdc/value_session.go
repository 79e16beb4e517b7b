package pgcdc

// SessionSettings gives the run-time parameters that every connection of ours sets at its start, where they win over
// those of the server, the database and the role. AppendValue relies on them: they make a value's text the same in
// snapshot and stream, and the one that row_to_json is compared by.
func SessionSettings() map[string]string {
	return map[string]string{
		"TimeZone":           "UTC",
		"DateStyle":          "ISO, MDY",
		"IntervalStyle":      "postgres",
		"bytea_output":       "hex",
		"extra_float_digits": "1",
		"client_encoding":    "UTF8",
	}
}
