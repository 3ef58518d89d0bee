package job

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/strict"
)

// function is one built-in of expressions. A change of what one computes is a new version (rules A11).
type function struct {
	version  uint16
	least    int // arguments
	most     int // at most 3; 0: any number, folded two by two from the left
	takes    typeSet
	gives    typeSet
	usage    string
	evaluate func(x, y, z crdt.Value) (v crdt.Value, reason string)
}

// maxArguments bounds the arguments of a call.
const maxArguments = 16

// functions is the allow-list. But for coalesce, which compiles to control flow, each is called with arguments that are
// not null: a null argument makes the result null.
//
// lower, upper and trim go by the Unicode tables of the Go release: another Unicode version is another version of them.
var functions = map[string]function{
	"abs":   {1, 1, 1, numberType, numberType, "abs(x)", fnAbs},
	"ceil":  {1, 1, 1, numberType, numberType, "ceil(x)", rounding(math.Ceil)},
	"floor": {1, 1, 1, numberType, numberType, "floor(x)", rounding(math.Floor)},
	"round": {1, 1, 1, numberType, numberType, "round(x), halves away from zero", rounding(math.Round)},
	"min":   {1, 1, 0, numberType, numberType, "min(x, y, ...) of numbers", fnLeast(-1)},
	"max":   {1, 1, 0, numberType, numberType, "max(x, y, ...) of numbers", fnLeast(1)},
	"int":   {1, 1, 1, numberType | textType, numberType, "int(x), cut towards zero", fnInt},
	"float": {1, 1, 1, numberType | textType, numberType, "float(x)", fnFloat},
	"string": {1, 1, 1, boolType | numberType | textType, textType, "string(x)",
		func(x, _, _ crdt.Value) (crdt.Value, string) { return crdt.Text(plain(x)), "" }},
	"len": {1, 1, 1, textType, numberType, "len(text), in characters",
		func(x, _, _ crdt.Value) (crdt.Value, string) {
			return crdt.Int(int64(utf8.RuneCountInString(x.Text()))), ""
		}},
	"lower":   {1, 1, 1, textType, textType, "lower(text)", textFunction(strings.ToLower)},
	"upper":   {1, 1, 1, textType, textType, "upper(text)", textFunction(strings.ToUpper)},
	"trim":    {1, 1, 1, textType, textType, "trim(text)", textFunction(strings.TrimSpace)},
	"geohash": {1, 3, 3, numberType, textType, "geohash(latitude, longitude, length 1 to 12)", fnGeohash},
}

const coalesceName, coalesceVersion = "coalesce", 1

var functionNames = func() []string {
	names := []string{coalesceName}
	for name := range functions {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}()

func (c *compiler) call(n *ast.CallNode) node {
	id, ok := n.Callee.(*ast.IdentifierNode)
	if !ok {
		c.fail(n, "one of "+strings.Join(functionNames, ", "), "a call of what is no function")
		return c.broken()
	}
	if id.Value == coalesceName {
		return c.coalesce(n)
	}
	f, ok := functions[id.Value]
	if !ok {
		hint := strict.DidYouMean(id.Value, functionNames)
		if isAggregate(id.Value) {
			hint = ", an aggregate: those stand alone, under aggregates"
		}
		c.fail(n, "one of "+strings.Join(functionNames, ", "), "unknown function %q%s", strict.Shorten(id.Value), hint)
		return c.broken()
	}
	most := f.most
	if most == 0 {
		most = maxArguments
	}
	if len(n.Arguments) < f.least || len(n.Arguments) > most {
		c.fail(n, f.usage, "%s with %d arguments", id.Value, len(n.Arguments))
		return c.broken()
	}
	return c.function(n, id.Value, f)
}

func (c *compiler) coalesce(n *ast.CallNode) node {
	if len(n.Arguments) < 1 || len(n.Arguments) > maxArguments {
		c.fail(n, "coalesce(x, y, ...)", "coalesce with %d arguments", len(n.Arguments))
		return c.broken()
	}
	c.uses[coalesceName] = true
	c.s.optional++
	defer func() { c.s.optional-- }()
	parts := make([]node, len(n.Arguments))
	for i, a := range n.Arguments {
		parts[i] = c.node(a)
	}
	return coalesce(parts)
}

// function compiles a call of a built-in whose name and number of arguments are right.
func (c *compiler) function(n *ast.CallNode, name string, f function) node {
	c.uses[name] = true
	out := node{typ: f.gives, canon: "(" + name}
	evals := make([]evalFn, len(n.Arguments))
	for i, a := range n.Arguments {
		arg := c.node(a)
		c.want(a, arg, f.takes, "argument "+strconv.Itoa(i+1)+" of "+name)
		evals[i] = arg.eval
		out.typ |= arg.typ & nullType
		out.canon += " " + arg.canon
		if v, err := arg.literal(); err == nil && name == "geohash" && i == 2 && !lengthOK(v) {
			c.fail(a, f.usage, "a geohash of length %s", plain(v))
		}
	}
	out.canon += ")"
	wrong := c.fault(n, "%s takes %s", name, f.takes)
	faults := make(map[string]*EvalError)
	for _, reason := range functionReasons {
		faults[reason] = c.fault(n, "%s", name+" "+reason)
	}
	out.eval = calls(f, evals, wrong, faults)
	return c.checked(n, out, name)
}

// calls evaluates the arguments in order, up to the first that fails or is null, and then the function.
func calls(f function, evals []evalFn, wrong *EvalError, faults map[string]*EvalError) evalFn {
	one := func(e evalFn, rec []crdt.Value) (crdt.Value, error) {
		v, err := e(rec)
		if err != nil || v.IsNull() {
			return v, err
		}
		v, ok := argument(v, f.takes)
		if !ok {
			return v, wrong
		}
		return v, nil
	}
	apply := func(x, y, z crdt.Value) (crdt.Value, error) {
		v, reason := f.evaluate(x, y, z)
		if reason != "" {
			return crdt.Value{}, faults[reason]
		}
		return v, nil
	}
	if f.most == 0 {
		return func(rec []crdt.Value) (crdt.Value, error) {
			out, err := one(evals[0], rec)
			for _, e := range evals[1:] {
				if err != nil || out.IsNull() {
					break
				}
				var v crdt.Value
				if v, err = one(e, rec); err != nil || v.IsNull() {
					return v, err
				}
				out, err = apply(out, v, crdt.Null())
			}
			return out, err
		}
	}
	return func(rec []crdt.Value) (crdt.Value, error) {
		var args [3]crdt.Value
		for i, e := range evals {
			v, err := one(e, rec)
			if err != nil || v.IsNull() {
				return v, err
			}
			args[i] = v
		}
		return apply(args[0], args[1], args[2])
	}
}

// literal returns the value of a constant, and an error for all else.
func (n node) literal() (crdt.Value, error) {
	if !n.konst {
		return crdt.Value{}, ErrEval
	}
	return n.eval(nil)
}

// argument converts v to a type that a function takes: an untyped text to a number where it takes no texts.
func argument(v crdt.Value, takes typeSet) (crdt.Value, bool) {
	switch v.Kind() {
	case crdt.KindInt, crdt.KindFloat:
		return v, takes&numberType != 0
	case crdt.KindText:
		return v, takes&textType != 0
	case crdt.KindRaw:
		if takes&textType != 0 {
			return crdt.Text(v.Text()), true
		}
		return number(v)
	case crdt.KindBool:
		return v, takes&boolType != 0
	}
	return v, false
}

// Why a function fails; each call has an error made for each of them.
const (
	overflows   = "is beyond 64 bits"
	noNumber    = "of a text that is no number"
	offEarth    = "of a place that is not on Earth"
	wrongLength = "has a length that is not 1 to 12"
)

var functionReasons = []string{overflows, noNumber, offEarth, wrongLength}

func fnAbs(v, _, _ crdt.Value) (crdt.Value, string) {
	switch {
	case v.Kind() == crdt.KindFloat:
		return crdt.Float(math.Abs(v.Float())), ""
	case v.Int() == math.MinInt64:
		return v, overflows
	case v.Int() < 0:
		return crdt.Int(-v.Int()), ""
	}
	return v, ""
}

// rounding leaves integers as they are and makes a float of a float.
func rounding(f func(float64) float64) func(x, y, z crdt.Value) (crdt.Value, string) {
	return func(x, _, _ crdt.Value) (crdt.Value, string) {
		if x.Kind() == crdt.KindInt {
			return x, ""
		}
		return crdt.Float(f(x.Float())), ""
	}
}

// fnLeast returns x unless y compares as sign to it.
func fnLeast(sign int) func(x, y, z crdt.Value) (crdt.Value, string) {
	return func(x, y, _ crdt.Value) (crdt.Value, string) {
		if crdt.Compare(y, x) == sign {
			return y, ""
		}
		return x, ""
	}
}

func fnInt(v, _, _ crdt.Value) (crdt.Value, string) {
	if v.Kind() == crdt.KindText {
		n, err := crdt.ParseNumber(v.Text())
		switch {
		case err != nil:
			return v, noNumber
		case n.Kind() == crdt.KindBig:
			return v, overflows
		}
		v = n
	}
	if v.Kind() == crdt.KindFloat {
		f := math.Trunc(v.Float())
		if f < -(1<<63) || f >= 1<<63 {
			return v, overflows
		}
		return crdt.Int(int64(f)), ""
	}
	return v, ""
}

func fnFloat(v, _, _ crdt.Value) (crdt.Value, string) {
	if v.Kind() == crdt.KindText {
		n, ok := number(crdt.Raw(v.Text()))
		if !ok {
			return v, noNumber
		}
		v = n
	}
	return crdt.Float(asFloat(v)), ""
}

func textFunction(f func(string) string) func(x, y, z crdt.Value) (crdt.Value, string) {
	return func(x, _, _ crdt.Value) (crdt.Value, string) { return crdt.Text(f(x.Text())), "" }
}

// plain writes a value as text: numbers and booleans as rows print them.
func plain(v crdt.Value) string {
	if isText(v) {
		return v.Text()
	}
	return string(v.AppendJSON(nil))
}

func lengthOK(n crdt.Value) bool {
	return n.Kind() == crdt.KindInt && n.Int() >= 1 && n.Int() <= maxGeohash
}

func fnGeohash(lat, lon, length crdt.Value) (crdt.Value, string) {
	if !lengthOK(length) {
		return crdt.Value{}, wrongLength
	}
	var buf [maxGeohash]byte
	hash, ok := appendGeohash(buf[:0], asFloat(lat), asFloat(lon), int(length.Int()))
	if !ok {
		return crdt.Value{}, offEarth
	}
	return crdt.Text(string(hash)), ""
}
