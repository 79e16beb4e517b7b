// Package demo is the shop of `tributary dev --demo`: a small schema, customers who order, rules, and three receivers of
// webhooks, of which one turns some away and one is broken.
//
// It promises to touch no database that has tables in it, and to leave none of its own behind after Close.
package demo

import (
	_ "embed"
	"strings"
)

// Source is the name that the rules know the database by.
const Source = "shop"

//go:embed observers.yaml
var rules string

//go:embed schema.sql
var schema string

// Observers gives the rules for receivers at an address, http://host:port.
func Observers(receivers string) []byte {
	return []byte(strings.ReplaceAll(rules, "${receivers}", receivers))
}
