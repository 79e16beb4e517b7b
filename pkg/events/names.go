package events

import (
	"fmt"
	"strings"
)

// The streams.
const (
	StreamEvents      = "EVENTS"
	StreamInbox       = "INBOX"
	StreamJobs        = "JOBS"
	StreamDeadLetters = "DEADLETTERS"
	StreamTraces      = "TRACES"
)

// The key-value buckets.
const (
	BucketDedup     = "dedup"
	BucketJobs      = "jobs"
	BucketCache     = "cache"
	BucketObservers = "observers"
	BucketLeases    = "leases"
	BucketWorkers   = "workers"
	BucketCircuits  = "circuits"
)

// InboxSource names INBOX among the sources of ingest; no source of a configuration can have this name.
const InboxSource = "INBOX"

// The first tokens of subjects.
const (
	prefixEvents    = "events."
	prefixPositions = "positions."
	prefixPublish   = "publish."
)

// ValidSource tells whether name matches [a-z][a-z0-9_]{0,52}.
func ValidSource(name string) bool { return validName(name, 53, '_') }

// ValidName tells whether name, of an observer or an action, matches [a-z][a-z0-9-]{0,62}.
func ValidName(name string) bool { return validName(name, 63, '-') }

func validName(name string, most int, extra byte) bool {
	if name == "" || len(name) > most || name[0] < 'a' || name[0] > 'z' {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != extra {
			return false
		}
	}
	return true
}

// Address is what an event's subject says.
type Address struct {
	Partition int
	Source    string
	Schema    string // an application's entity; empty for a logical message
	Table     string // an application's type; a logical message's prefix
	Op        Op
}

// Subject gives events.<partition>.<source>.<schema>.<table>.<op>.
func (a Address) Subject() string {
	dst := make([]byte, 0, 64)
	dst = append(dst, prefixEvents...)
	dst = appendPartition(dst, a.Partition)
	dst = append(dst, '.')
	dst = AppendToken(dst, a.Source)
	dst = append(dst, '.')
	dst = AppendToken(dst, a.Schema)
	dst = append(dst, '.')
	dst = AppendToken(dst, a.Table)
	dst = append(dst, '.')
	return string(append(dst, a.Op...))
}

// Entity is what observers match: schema.table, entity.type, or a logical message's prefix.
func (a Address) Entity() string {
	if a.Schema == "" {
		return a.Table
	}
	return a.Schema + "." + a.Table
}

// FromApplication tells whether an application published the event.
func (a Address) FromApplication() bool { return a.Op == OpMessage && a.Schema != "" }

// EffectID is the id that keys the effects of the event at this address.
func (a Address) EffectID(e *Event) string {
	if a.FromApplication() {
		return ApplicationID(a.Source, e.Source, e.ID)
	}
	return e.ID
}

// ParseAddress reads the subject of an event.
func ParseAddress(subject string) (Address, error) {
	invalid := func() (Address, error) {
		return Address{}, fmt.Errorf("%w: subject %q is not events.<partition>.<source>.<schema>.<table>.<op>", ErrInvalid, subject)
	}
	tokens := strings.Split(subject, ".")
	if len(tokens) != 6 || tokens[0]+"." != prefixEvents || len(tokens[1]) != 3 {
		return invalid()
	}
	a := Address{Op: Op(tokens[5])}
	for i := range 3 {
		c := tokens[1][i]
		if c < '0' || c > '9' {
			return invalid()
		}
		a.Partition = a.Partition*10 + int(c-'0')
	}
	for i, field := range []*string{&a.Source, &a.Schema, &a.Table} {
		text, ok := UnescapeToken(tokens[2+i])
		if !ok {
			return invalid()
		}
		*field = text
	}
	if !a.Op.Valid() || a.Source == "" {
		return invalid()
	}
	return a, nil
}

// EventsOfSource filters every event of a source, in all partitions.
func EventsOfSource(source string) string { return prefixEvents + "*." + EscapeToken(source) + ".>" }

// EveryMessage filters what applications published, and logical messages of databases.
const EveryMessage = prefixEvents + "*.*.*.*." + string(OpMessage)

// ChangesOfSource filters the events that a source's own database gave, in several filters: an application may have
// published under the same name.
func ChangesOfSource(source string) []string {
	prefix := prefixEvents + "*." + EscapeToken(source) + "."
	var filters []string
	for _, op := range Ops() {
		if op == OpMessage {
			filters = append(filters, prefix+EscapeToken("")+".*."+string(op))
		} else {
			filters = append(filters, prefix+"*.*."+string(op))
		}
	}
	return filters
}

// EventsOfPartition filters every event of a partition.
func EventsOfPartition(partition int) string {
	return string(append(appendPartition([]byte(prefixEvents), partition), ".>"...))
}

// PositionSubject holds the positions of a source: who may go on, and from where.
func PositionSubject(source string) string { return prefixPositions + EscapeToken(source) }

// PartitionName gives the three digits of a partition.
func PartitionName(partition int) string { return string(appendPartition(nil, partition)) }

func appendPartition(dst []byte, partition int) []byte {
	return append(dst, byte('0'+partition/100%10), byte('0'+partition/10%10), byte('0'+partition%10))
}

// Publication is what the subject of an application's message says.
type Publication struct {
	Source, Entity, Type string
	Key                  string // empty where there is none: the entity is the key
}

// Subject gives publish.<source>.<entity>.<type>[.<key>].
func (p Publication) Subject() string {
	subject := prefixPublish + EscapeToken(p.Source) + "." + EscapeToken(p.Entity) + "." + EscapeToken(p.Type)
	if p.Key == "" {
		return subject
	}
	return subject + "." + EscapeToken(p.Key)
}

// EntityKey is the partition key of what is published.
func (p Publication) EntityKey() string {
	if p.Key == "" {
		return EscapeToken(p.Entity)
	}
	return EscapeToken(p.Entity) + "/" + EscapeToken(p.Key)
}

// ParsePublication reads the subject of an application's message; it errors with what breaks the rules.
func ParsePublication(subject string) (Publication, error) {
	tokens := strings.Split(subject, ".")
	if len(tokens) < 4 || len(tokens) > 5 || tokens[0]+"." != prefixPublish {
		return Publication{}, fmt.Errorf("subject %q is not publish.<source>.<entity>.<type>[.<key>]", subject)
	}
	var p Publication
	fields := []*string{&p.Source, &p.Entity, &p.Type, &p.Key}
	for i, token := range tokens[1:] {
		text, ok := UnescapeToken(token)
		if !ok {
			return Publication{}, fmt.Errorf("subject %q: token %q is not escaped as %%XX of all but A-Z a-z 0-9 _ -", subject, token)
		}
		*fields[i] = text
	}
	switch {
	case !ValidSource(p.Source):
		return Publication{}, fmt.Errorf("subject %q: source %q is not [a-z][a-z0-9_]{0,52}", subject, p.Source)
	case p.Entity == "":
		return Publication{}, fmt.Errorf("subject %q: the entity is empty", subject)
	case p.Type == "":
		return Publication{}, fmt.Errorf("subject %q: the type is empty", subject)
	default:
		return p, nil
	}
}
