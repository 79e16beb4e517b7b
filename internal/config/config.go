// Package config reads the one configuration of all services: a YAML file, environment variables that override it, and flags
// that override both.
//
// Each key has one path, such as worker.concurrency, which is also the variable TRIBUTARY_WORKER_CONCURRENCY and the flag
// --worker.concurrency. Every error names the path, where the value came from, and what to write instead. Passwords are never in
// an error, a log line or a print of a Config.
//
// The keys, with their types, defaults and limits, are the tags of Config's fields; nothing else lists them.
package config

import (
	"net/netip"
	"time"
)

// Config is what Load has read: complete, with defaults, and valid. Its tags say: key, the name in the file; default; help;
// min and max, the limits; oneof, the values there are; path, that it is a file's or folder's.
type Config struct {
	NATS            NATS          `key:"nats"`
	Sources         []Source      `key:"sources"`
	Ingest          Ingest        `key:"ingest"`
	Events          Events        `key:"events"`
	Observers       string        `key:"observers" path:"true" help:"a file of observers, or a folder of such files; empty reads them from the KV bucket observers"`
	Actions         Actions       `key:"actions"`
	Worker          Worker        `key:"worker"`
	Circuits        Circuits      `key:"circuits"`
	Endpoints       []Endpoint    `key:"endpoints"`
	Dedup           Dedup         `key:"dedup"`
	Jobs            Jobs          `key:"jobs"`
	Traces          Traces        `key:"traces"`
	Indexer         Indexer       `key:"indexer"`
	HTTP            HTTP          `key:"http"`
	Log             Log           `key:"log"`
	StateDir        string        `key:"state_dir" path:"true" default:".tributary" help:"the folder for what a service keeps on its own disk, and for the files <service>.addr"`
	ShutdownTimeout time.Duration `key:"shutdown_timeout" default:"10s" min:"1ms" help:"the time in which a service drains at SIGTERM"`

	origins map[string]string // where the value of a path came from, for errors
}

// NATS is the server or cluster that holds the streams.
type NATS struct {
	URL         string `key:"url" help:"the address, nats://host:4222; several are separated by commas"`
	Credentials string `key:"credentials" path:"true" help:"a .creds file"`
	Replicas    int    `key:"replicas" default:"1" oneof:"1|3|5" help:"the replicas of every stream and bucket"`
}

// Source is one PostgreSQL database whose changes become events.
type Source struct {
	Name        string   `key:"name" help:"the source's name in subjects and ids: [a-z][a-z0-9_]{0,52}"`
	Postgres    Secret   `key:"postgres" help:"the database: env:NAME, file:PATH, or postgres://user@host/database"`
	Tables      []string `key:"tables" default:"public.*" help:"the tables to publish, as schema.table; * stands for any part of a name; those of a pattern that begins with ! are left out"`
	Ops         []string `key:"ops" help:"the operations to publish: insert, update, delete, truncate, snapshot, message; empty publishes all"`
	Filter      string   `key:"filter" help:"a condition in CEL, as observers have it, with the variables schema and table; a change for which it is false is not published"`
	Exclude     []string `key:"exclude" help:"the columns to leave out, as table.column or schema.table.column; * stands for any part of a name; with ? behind it, one that need not be there"`
	Mask        Mask     `key:"mask" help:"the columns whose values to replace, named as in exclude, with how: sha256, hmac (needs mask_key) or redact"`
	MaskKey     Secret   `key:"mask_key" help:"the key of hmac, at least 16 bytes: env:NAME or file:PATH"`
	Slot        string   `key:"slot" help:"the replication slot; tributary_<name> when empty"`
	Publication string   `key:"publication" help:"the publication; tributary_<name> when empty"`
	Snapshot    bool     `key:"snapshot" default:"true" help:"whether the rows that a table holds when it is first read become events, at the first start and when it is added later"`

	SnapshotParallel int  `key:"snapshot_parallel" default:"2" min:"1" max:"64" help:"the connections that read the rows at the first start"`
	SnapshotRate     Size `key:"snapshot_rate" default:"0" min:"0" help:"the most bytes of rows that are read in a second, to spare the database; 0 is no bound"`

	Heartbeat      time.Duration `key:"heartbeat" default:"10s" min:"0s" help:"how often an idle database's slot is moved on; 0s never"`
	ReceiveTimeout time.Duration `key:"receive_timeout" default:"20s" min:"3s" help:"how long the database may say nothing, though it was asked to, until its connections are given up and made anew"`
}

// Mask says by name of columns what replaces their values.
type Mask map[string]string

// Ingest is the road from the sources to EVENTS.
type Ingest struct {
	Rewind      time.Duration `key:"rewind" default:"4m" min:"0s" help:"how long WAL is kept behind what is stored, against a power cut of NATS; 0s where NATS syncs always"`
	RewindBytes Size          `key:"rewind_bytes" default:"1GiB" min:"0" help:"the most WAL that is kept for ingest.rewind"`
	QueueBytes  Size          `key:"queue_bytes" default:"8MiB" min:"64KiB" help:"the memory for what is read and not stored yet, for each source"`
	Inbox       bool          `key:"inbox" default:"true" help:"whether messages on publish.> become events"`
	Checkpoints bool          `key:"checkpoints" default:"true" help:"whether positions are mirrored in each source's database, in schema tributary, to explain and to recover by hand"`
}

// Events is the stream EVENTS.
type Events struct {
	MaxBytes   Size          `key:"max_bytes" default:"0" min:"0" help:"the most that the stream holds; 0 leaves it as streams/events.json has it"`
	MaxAge     time.Duration `key:"max_age" default:"0s" min:"0s" help:"how long the stream keeps an event; 0s leaves it as streams/events.json has it"`
	Partitions int           `key:"partitions" default:"16" min:"1" max:"999" help:"the number of partitions; it counts only when the stream is made"`
}

// Actions holds for what worker and jobrunner call.
type Actions struct {
	AllowPrivate []netip.Prefix `key:"allow_private" help:"private networks that actions may reach, such as 10.0.0.0/8"`
	TLS          []ActionTLS    `key:"tls"`
}

// ActionTLS says what TLS to some hosts goes by. The first that names a host counts.
type ActionTLS struct {
	Host string `key:"host" default:"*" help:"whom it is for: api.example, api.example:8443, *.corp.example, or * for every host"`
	CA   string `key:"ca" path:"true" help:"certificates in PEM that these hosts are trusted by, instead of the system's; a database is then never connected to without TLS"`
	Cert string `key:"cert" path:"true" help:"the certificate in PEM that these hosts are shown; files that are replaced are read again"`
	Key  string `key:"key" path:"true" help:"the private key of cert, in PEM"`
}

// Worker runs the actions that are due.
type Worker struct {
	Concurrency int `key:"concurrency" default:"64" min:"1" help:"the number of actions at the same time"`
}

// Circuits keep calls from endpoints that are down; worker and jobrunner share what they know of them.
type Circuits struct {
	FailurePercent int           `key:"failure_percent" default:"50" min:"1" max:"100" help:"a circuit opens when more than this share of the calls of a window has failed"`
	MinCalls       int           `key:"min_calls" default:"20" min:"1" help:"the calls of a window, of all processes together, below which no circuit opens"`
	Window         time.Duration `key:"window" default:"30s" min:"1s" help:"how far back calls count"`
	OpenFor        time.Duration `key:"open_for" default:"10s" min:"10ms" help:"how long nothing is called before the first probe, and between probes that fail"`
	Probes         int           `key:"probes" default:"5" min:"1" max:"1000" help:"the calls that have to succeed before a circuit closes"`
	Ramp           time.Duration `key:"ramp" default:"5s" min:"1ms" help:"the time in which the calls at the same time grow from one to all after a circuit has closed"`
	ParkMaxAge     time.Duration `key:"park_max_age" default:"24h" min:"1s" help:"what has waited for a circuit for longer becomes a dead letter; less than events.max_age"`
}

// Endpoint bounds what one endpoint is asked for by each process.
type Endpoint struct {
	Name        string `key:"name" help:"the endpoint, as scheme://host:port, or the circuit that actions name"`
	Rate        string `key:"rate" help:"the most calls in a time: 100/s, 600/m or 1000/h; empty for no bound"`
	Concurrency int    `key:"concurrency" default:"0" min:"0" help:"the most calls at the same time; 0 for no bound"`
}

// Dedup is the record of what was done.
type Dedup struct {
	Window  time.Duration `key:"window" default:"5m" min:"1s" help:"how long what is done of an application's event is remembered, so that its duplicate is none; rows have no such limit"`
	OnError string        `key:"on_error" default:"wait" oneof:"wait|run" help:"what to do while the record can't be reached: wait, or run the action and perhaps repeat it"`
}

// Jobs are attempts that come later.
type Jobs struct {
	Concurrency int           `key:"concurrency" default:"64" min:"1" help:"the number of jobs at the same time"`
	Keep        time.Duration `key:"keep" default:"24h" min:"1s" help:"how long the record of an ended job stays"`
}

// Traces are the records of why each event did what it did.
type Traces struct {
	Sample   float64       `key:"sample" default:"1" min:"0" max:"1" help:"the share of events whose evaluation and attempts are recorded; what failed always is"`
	MaxAge   time.Duration `key:"max_age" default:"0s" min:"0s" help:"how long a record stays; 0s leaves it as streams/traces.json has it, 24h"`
	MaxBytes Size          `key:"max_bytes" default:"0" min:"0" help:"the most that is kept of them, the oldest goes first; 0 leaves it as streams/traces.json has it, 256MiB"`
}

// Indexer makes events searchable.
type Indexer struct {
	Elasticsearch string        `key:"elasticsearch" help:"the address of Elasticsearch or OpenSearch; empty takes the embedded index"`
	Username      string        `key:"username" help:"the user of indexer.elasticsearch"`
	Password      Secret        `key:"password" help:"the password of indexer.username: env:NAME or file:PATH"`
	APIKey        Secret        `key:"api_key" help:"an API key instead of a user, as Elasticsearch encodes it: env:NAME or file:PATH"`
	CAFile        string        `key:"ca_file" path:"true" help:"certificates in PEM that indexer.elasticsearch is trusted by, instead of the system's"`
	AllowUnknown  bool          `key:"allow_unknown" default:"false" help:"whether a server is taken for Elasticsearch that does not say that it is, nor that it is OpenSearch"`
	Index         string        `key:"index" default:"tributary-events" help:"what the names of indices in Elasticsearch begin with: <index>-YYYY.MM; also the name of their template"`
	Dir           string        `key:"dir" path:"true" help:"the folder of the embedded index; empty takes index in state_dir"`
	BulkCount     int           `key:"bulk_count" default:"2000" min:"1" max:"10000" help:"the most documents that are written at once"`
	BulkBytes     Size          `key:"bulk_bytes" default:"8MiB" min:"64KiB" max:"90MiB" help:"the most bytes that are written at once"`
	BulkAge       time.Duration `key:"bulk_age" default:"500ms" min:"1ms" help:"how long a document waits for others to be written with"`
	Concurrency   int           `key:"concurrency" default:"2" min:"1" max:"64" help:"how many writes are made at the same time"`
	QueueBytes    Size          `key:"queue_bytes" default:"32MiB" min:"8MiB" help:"the memory for events and documents that are not indexed yet; what is being sent takes up to indexer.concurrency times indexer.bulk_bytes beside it"`
	Retention     time.Duration `key:"retention" default:"0s" min:"0s" help:"a month is removed from the index when all of it is older, such as 90d; 0s keeps all"`
}

// HTTP is each service's own server, for metrics and health.
type HTTP struct {
	Listen string `key:"listen" default:"127.0.0.1:0" help:"host:port; port 0 takes a free one, which is logged and written to <service>.addr in state_dir"`
	PProf  bool   `key:"pprof" default:"false" help:"whether /debug/pprof is served"`
}

// Log is what a service writes to standard error.
type Log struct {
	Level  string `key:"level" default:"info" oneof:"debug|info|warn|error" help:"the least level that is written"`
	Format string `key:"format" default:"text" oneof:"text|json" help:"lines for people, or JSON"`
}

// Size is a number of bytes, written as 1024, 64KiB or 1GiB.
type Size int64
