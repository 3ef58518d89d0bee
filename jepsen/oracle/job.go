package oracle

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// job is what the oracle needs of a job file. Times and durations are milliseconds.
type job struct {
	sources  []source
	window   window
	lateness int64
	derive   []named
	having   Expr
}

type source struct {
	topic, format  string
	columns        []string          // of a CSV, in order
	types          map[string]string // column -> text, int, float, bool
	timeField      string
	timeUnit       time.Duration // of one unit, or 0 where the time is a text
	timeLayout     string
	timeZone       *time.Location
	outOfOrderness int64
	maxFuture      int64
	futureKnown    bool // false for max_future: none
	where          Expr
	key            []named
	aggregates     []aggregate
}

type named struct {
	name string
	expr Expr
}

// jobFile is the YAML's shape; members whose order counts stay nodes.
type jobFile struct {
	Sources []struct {
		Topic          string
		Format         string
		Columns        yaml.Node
		Time           yaml.Node
		OutOfOrderness string `yaml:"out_of_orderness"`
		MaxFuture      string `yaml:"max_future"`
		Where          string
		Key            yaml.Node
		Aggregates     yaml.Node
	}
	Window          map[string]string
	AllowedLateness string `yaml:"allowed_lateness"`
	Derive          yaml.Node
	Having          string
}

func parseJob(text []byte, exprs map[string]Expr) (*job, error) {
	var f jobFile
	if err := yaml.Unmarshal(text, &f); err != nil {
		return nil, err
	}
	if len(f.Sources) == 0 {
		return nil, errors.New("no sources")
	}
	r := &reader{exprs: exprs}
	j := &job{lateness: r.millis(f.AllowedLateness, "0s"), derive: r.members(f.Derive), window: r.window(f.Window)}
	if f.Having != "" {
		j.having = r.expr(f.Having)
	}
	for _, s := range f.Sources {
		in := source{topic: s.Topic, format: s.Format, types: map[string]string{}, key: r.members(s.Key)}
		for _, c := range pairs(s.Columns) {
			in.columns = append(in.columns, c[0])
			in.types[c[0]] = c[1]
		}
		r.time(&in, s.Time)
		in.outOfOrderness = r.millis(s.OutOfOrderness, "0s")
		if in.futureKnown = s.MaxFuture != "none"; in.futureKnown {
			in.maxFuture = r.millis(s.MaxFuture, "1h")
		}
		if s.Where != "" {
			in.where = r.expr(s.Where)
		}
		for _, a := range pairs(s.Aggregates) {
			in.aggregates = append(in.aggregates, r.aggregate(a[0], a[1]))
		}
		j.sources = append(j.sources, in)
	}
	return j, r.err
}

// reader keeps the first error.
type reader struct {
	exprs map[string]Expr
	err   error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// pairs lists a mapping in the order of the file; a list of names gives pairs of equal halves.
func pairs(n yaml.Node) [][2]string {
	var out [][2]string
	for i, c := range n.Content {
		switch {
		case n.Kind == yaml.SequenceNode:
			out = append(out, [2]string{c.Value, c.Value})
		case i%2 == 1:
			out = append(out, [2]string{n.Content[i-1].Value, c.Value})
		}
	}
	return out
}

func (r *reader) members(n yaml.Node) []named {
	var out []named
	for _, m := range pairs(n) {
		out = append(out, named{name: m[0], expr: r.expr(m[1])})
	}
	return out
}

var (
	plainField  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$`)
	quotedField = regexp.MustCompile(`^\$\["([^"]+)"\]$`)
	call        = regexp.MustCompile(`^([a-z_]+)\((.*)\)$`)
	days        = regexp.MustCompile(`^([0-9]+)d`)
)

// expr is the field that text names, or the function given for it.
func (r *reader) expr(text string) Expr {
	if e, ok := r.exprs[text]; ok {
		return e
	}
	name := text
	if m := quotedField.FindStringSubmatch(text); m != nil {
		name = m[1]
	} else if !plainField.MatchString(text) {
		r.fail("%w: %s", ErrNoExpr, text)
	}
	return func(env func(string) Value) (Value, error) { return env(name), nil }
}

func (r *reader) aggregate(name, text string) aggregate {
	m := call.FindStringSubmatch(text)
	if m == nil {
		r.fail("aggregate %s: %q is no call", name, text)
		return aggregate{}
	}
	a := aggregate{name: name, function: m[1]}
	switch a.function {
	case "count", "sum", "min", "max", "avg", "stddev", "distinct", "first", "last":
	default:
		r.fail("aggregate %s: the oracle does not know %s", name, a.function)
	}
	if arg := strings.TrimSpace(m[2]); arg != "" {
		a.arg = r.expr(arg)
	} else if a.function != "count" {
		r.fail("aggregate %s: %s of nothing", name, a.function)
	}
	return a
}

func (r *reader) window(w map[string]string) window {
	switch {
	case w["tumbling"] != "":
		return window{kind: tumbling, size: r.millis(w["tumbling"], "")}
	case w["hopping"] != "":
		return window{kind: hopping, size: r.millis(w["hopping"], ""), every: r.millis(w["every"], "")}
	case w["session"] != "":
		return window{kind: session, size: r.millis(w["session"], "")}
	case w["global"] == "true":
		return window{kind: global}
	}
	r.fail("window: none of tumbling, hopping, session, global")
	return window{}
}

// millis reads a duration of Go's syntax plus days in front.
func (r *reader) millis(text, otherwise string) int64 {
	if text == "" {
		text = otherwise
	}
	var total time.Duration
	if m := days.FindStringSubmatch(text); m != nil {
		n, err := strconv.ParseInt(m[1], 10, 32)
		if err != nil {
			r.fail("duration %q: %w", text, err)
		}
		total = time.Duration(n) * 24 * time.Hour
		text = text[len(m[0]):]
	}
	if text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			r.fail("duration: %w", err)
		}
		total += d
	}
	return total.Milliseconds()
}

// time reads `time: field` or `time: {field, unit}` or `time: {field, layout, zone}`.
func (r *reader) time(in *source, n yaml.Node) {
	in.timeField, in.timeLayout, in.timeZone = n.Value, time.RFC3339, time.UTC
	for _, m := range pairs(n) {
		switch m[0] {
		case "field":
			in.timeField = m[1]
		case "unit":
			unit, ok := map[string]time.Duration{"s": time.Second, "ms": time.Millisecond,
				"us": time.Microsecond, "ns": time.Nanosecond}[m[1]]
			if !ok {
				r.fail("time: unit %q", m[1])
			}
			in.timeUnit = unit
		case "layout":
			in.timeLayout = m[1]
		case "zone":
			zone, err := time.LoadLocation(m[1])
			if err != nil {
				r.fail("time: %w", err)
				zone = time.UTC
			}
			in.timeZone = zone
		}
	}
	if in.timeField == "" {
		r.fail("time: no field")
	}
}
