package job

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/watershed-db/watershed/crdt"
)

// item is one thing that a job file says, in a form that does not depend on how it is written.
type item struct {
	name  string
	value string
	// inPlace marks what changes no result and can change while a generation lives: sinks and side outputs, emission,
	// and what only drives commands (idle flags, horizons).
	inPlace bool
}

// items returns everything a job says but its name. A new form of an item changes every job's meaning: add, never alter.
func (j *Job) items() []item {
	var out []item
	meaning := func(name, format string, args ...any) {
		out = append(out, item{name: name, value: fmt.Sprintf(format, args...)})
	}
	inPlace := func(name, format string, args ...any) {
		out = append(out, item{name, fmt.Sprintf(format, args...), true})
	}
	for i := range j.Inputs {
		j.Inputs[i].items(fmt.Sprintf("sources[%d].", i), j.KeyNames, meaning, inPlace)
	}
	meaning("key", "%q", j.KeyNames)
	var names []string
	for _, a := range j.Aggregates {
		names = append(names, a.Name)
		arg := ""
		if a.Arg != nil {
			arg = a.Arg.canon
		}
		meaning(fmt.Sprintf("sources[%d].aggregates.%s", a.Input, a.Name), "%d %s(%s)", a.Op, a.Op, arg)
	}
	meaning("the order of aggregates", "%q", names)
	meaning("window", "%s %d %d", j.Window.Kind, j.Window.Size, j.Window.Every)
	meaning("allowed_lateness", "%d", j.Lateness)
	names = nil
	for _, d := range j.Derived {
		names = append(names, d.Name)
		meaning("derive."+d.Name, "%s", d.Program.canon)
	}
	meaning("the order of derive", "%q", names)
	if j.Having != nil {
		meaning("having", "%s", j.Having.canon)
	}
	inPlace("retention", "%d", j.Retention)
	inPlace("max_session", "%d", j.MaxSession)
	inPlace("emit.from", "%t", j.Emit.EveryRegion)
	inPlace("emit.unreachable", "%t %d", j.Emit.Partial, j.Emit.PartialAfter)
	inPlace("emit.sinks", "%q", j.Emit.Sinks)
	inPlace("side_outputs", "%q", j.SideOutputs)
	return out
}

func (in *Input) items(prefix string, keys []string, meaning, inPlace func(name, format string, args ...any)) {
	meaning(prefix+"topic", "%s", in.Topic)
	meaning(prefix+"format", "%s", in.Format)
	var columns []string
	for _, c := range in.Columns {
		columns = append(columns, fmt.Sprintf("%q %s", c.Name, c.Type))
	}
	meaning(prefix+"columns", "%s", strings.Join(columns, ", "))
	time := ""
	if in.Time.Field < len(in.Fields) {
		time = in.Fields[in.Time.Field].Name
	}
	meaning(prefix+"time", "%q %q %q", time, in.Time.Unit, in.Time.Layout)
	meaning(prefix+"out_of_orderness", "%d", in.Bound)
	meaning(prefix+"max_future", "%d", in.MaxFuture)
	inPlace(prefix+"idle_after", "%d", in.IdleAfter)
	if in.Where != nil {
		meaning(prefix+"where", "%s", in.Where.canon)
	}
	for i, k := range in.Key {
		meaning(prefix+"key."+keys[i], "%s", k.canon)
	}
}

// Meaning returns the hash of what the file means: equal for two files exactly if no log gives them different results.
// Comments, spelling, the job's name, sinks, side outputs, emission and retention are no part of it.
func (j *Job) Meaning() [32]byte {
	h := sha256.New()
	fmt.Fprintln(h, "watershed job 1")
	for _, it := range j.items() {
		if !it.inPlace {
			fmt.Fprintf(h, "%q %q\n", it.name, it.value)
		}
	}
	return [32]byte(h.Sum(nil))
}

// Diff names what differs between two jobs, in the order of the file: what changes the meaning and needs a new
// generation, and what can change in place.
func (j *Job) Diff(other *Job) (meaning, emission []string) {
	mine, theirs := j.items(), other.items()
	tell := func(it item) {
		list := &meaning
		if it.inPlace {
			list = &emission
		}
		if !slices.Contains(*list, it.name) {
			*list = append(*list, it.name)
		}
	}
	differ := func(a, b []item) {
		values := make(map[string]string, len(b))
		for _, it := range b {
			values[it.name] = it.value
		}
		for _, it := range a {
			if v, ok := values[it.name]; !ok || v != it.value {
				tell(it)
			}
		}
	}
	differ(mine, theirs)
	differ(theirs, mine)
	return meaning, emission
}

// Pinned is a version of something that a job's results depend on (rules A11).
type Pinned struct {
	Name    string // expression, time, function.NAME, aggregate.NAME or format.NAME
	Version uint16
}

// Versions of what has no version of its own in this package.
const (
	expressionVersion = 1 // operators, nulls, conversions
	decoderVersion    = 1
	timeVersion       = 1
	aggregateVersion  = 1
)

// Builtins returns a version of each built-in and decoder that the job uses, sorted by name.
func (j *Job) Builtins() []Pinned {
	used := map[string]uint16{"expression": expressionVersion}
	program := func(p *Program) {
		if p == nil {
			return
		}
		for _, name := range p.uses {
			used["function."+name] = functionVersion(name)
		}
	}
	for _, in := range j.Inputs {
		used["format."+in.Format.String()] = decoderVersion
		used["time"] = timeVersion
		program(in.Where)
		for _, k := range in.Key {
			program(k)
		}
	}
	for _, a := range j.Aggregates {
		used["aggregate."+aggregateName(a.Op)] = aggregateVersion
		program(a.Arg)
	}
	for _, d := range j.Derived {
		program(d.Program)
	}
	program(j.Having)
	return sortedPins(used)
}

// Announced returns the versions that this build has of everything a job may pin, sorted by name.
func Announced() []Pinned {
	all := map[string]uint16{"expression": expressionVersion, "time": timeVersion,
		"format.json": decoderVersion, "format.csv": decoderVersion}
	for _, name := range functionNames {
		all["function."+name] = functionVersion(name)
	}
	for op := crdt.OpRecords; op <= crdt.OpLast; op++ {
		all["aggregate."+aggregateName(op)] = aggregateVersion
	}
	return sortedPins(all)
}

func sortedPins(versions map[string]uint16) []Pinned {
	out := make([]Pinned, 0, len(versions))
	for name, v := range versions {
		out = append(out, Pinned{name, v})
	}
	slices.SortFunc(out, func(a, b Pinned) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func functionVersion(name string) uint16 {
	if name == coalesceName {
		return coalesceVersion
	}
	return functions[name].version
}

func aggregateName(op crdt.Op) string {
	if op == crdt.OpRecords {
		return "count()"
	}
	return op.String()
}
