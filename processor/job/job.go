// Package job says what a job file means: it checks the file, compiles its expressions, and makes rows of merged cells.
// It is pure: no I/O, no clock, no environment, and everything it returns is a function of its arguments.
package job

import (
	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/strict"
)

// Bounds of a job file.
const (
	MaxFileBytes       = 1 << 20
	MaxExpressionBytes = 4096
	MaxSources         = 64
	MaxKeyParts        = 16
	MaxAggregates      = crdt.MaxColumns
	MaxDerived         = 256
	MaxFields          = 1024 // of one source
	MaxColumns         = 4096 // of one source
	MaxSinks           = 16
)

// NoMaxFuture is the MaxFuture of an Input that judges no time implausible.
const NoMaxFuture int64 = -1

// Job is a checked job file. It is immutable and safe for concurrent use. Durations are milliseconds.
type Job struct {
	Name   string
	File   []byte  // as it was parsed
	Inputs []Input // the file's sources, in order; a crdt.Source's Input is an index into it

	Window     keyspace.Window
	Lateness   int64 // allowed_lateness
	Retention  int64 // never below Lateness
	MaxSession int64 // Retention unless the file says otherwise

	KeyNames   []string    // members of a row's key, in declared order
	Aggregates []Aggregate // of all inputs, in the order of the file; the columns of a Cell
	Derived    []Derived   // in order; each may use the key's members, the aggregates, and those before it
	Having     *Program    // nil without; over keys, aggregates and derived values, as derive

	Emit        Emit
	SideOutputs SideOutputs

	labels labels
}

// Input is one of a job's sources.
type Input struct {
	Index   int
	Topic   string
	Format  Format
	Columns []Column // CSV: declared columns, nil where the file's header names them

	// Fields are the members that anything below uses, each once. A decoded record is a []crdt.Value with a value for
	// each of them; one that is absent stands in it as null, and is told apart where KeyFields and Time need it.
	Fields    []Field
	Time      Time
	Bound     int64 // out_of_orderness
	MaxFuture int64 // NoMaxFuture where nothing is implausible
	IdleAfter int64

	Where     *Program   // nil without
	Key       []*Program // in the order of Job.KeyNames
	KeyFields []int      // Fields that the key reads: a record that lacks one of them is invalid

	// FirstAggregate and Aggregates say which of the job's aggregates this input feeds: Job.Aggregates[FirstAggregate :
	// FirstAggregate+Aggregates]. In its cells all others stay empty.
	FirstAggregate int
	Aggregates     int

	at position // of the source in the file
}

// Format is how records are encoded.
type Format uint8

// The formats.
const (
	JSON Format = iota + 1
	CSV
)

// String returns the format's name in a job file.
func (f Format) String() string {
	if f == CSV {
		return "csv"
	}
	return "json"
}

// Column is a declared column of a CSV source.
type Column struct {
	Name string
	Type Type
}

// Type is the declared type of a column.
type Type uint8

// The types of columns. A field without a declared type is Untyped.
const (
	Untyped Type = iota
	Text
	Integer
	Float
	Boolean
)

var typeNames = []string{"", "text", "int", "float", "bool"}

// String returns the type's name in a job file.
func (t Type) String() string { return typeNames[t] }

// Field is a member of a record that a job reads.
type Field struct {
	Name string // of a CSV column, or a path of names into nested JSON objects, joined by dots
	Type Type   // the declared type of its CSV column
}

// Aggregate is one aggregate of a job: what a column of its cells holds.
type Aggregate struct {
	Name  string
	Input int // whose records it folds
	Op    crdt.Op
	Arg   *Program // over the Input's Fields; nil for count()
}

// Derived is one derived value of a row.
type Derived struct {
	Name    string
	Program *Program
}

// Emit says how rows leave a job.
type Emit struct {
	EveryRegion bool // else the owner alone
	// Partial says that windows fire without unreachable regions, PartialAfter milliseconds after they could have fired
	// with them; else they wait.
	Partial      bool
	PartialAfter int64
	Sinks        []Sink
}

// Sink is where rows go.
type Sink struct {
	KafkaTopic string
}

// SideOutputs are topics for what is not counted; an empty one drops the records after counting them.
type SideOutputs struct {
	Late, Implausible, Invalid string
}

// Schema returns what the job's cells hold.
func (j *Job) Schema() *crdt.Schema {
	s := &crdt.Schema{Spans: j.Window.Kind == keyspace.Session}
	for _, a := range j.Aggregates {
		s.Ops = append(s.Ops, a.Op)
	}
	return s
}

// RequireTopics checks what a job needs when its sources are topics: a CSV source must declare its columns, since a
// topic has no header line. filename is for the messages. The error is a strict.ErrorList.
func (j *Job) RequireTopics(filename string) error {
	var errs strict.ErrorList
	for _, in := range j.Inputs {
		if in.Format == CSV && in.Columns == nil {
			errs = append(errs, strict.Error{File: filename, Line: in.at.line, Column: in.at.column,
				What:     "the source " + in.Topic + " is csv from a topic, which has no header line",
				Expected: `columns, such as columns: {"Date/Time": text, Lat: float}`})
		}
	}
	if errs == nil {
		return nil
	}
	return errs.Sorted()
}

type position struct{ line, column int }
