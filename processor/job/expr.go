package job

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	exprparser "github.com/expr-lang/expr/parser"
	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/strict"
	"go.yaml.in/yaml/v3"
)

// ErrEval is wrapped by every error of Program.Eval.
var ErrEval = errors.New("evaluation failed")

// EvalError says why an expression has no value for a record. Errors are made when the expression is compiled, so that a
// failing record costs no allocation.
type EvalError struct {
	Where  string // the place in the job file, such as sources[0].where
	At     int    // the character of the expression, from 1
	Reason string
}

// Error returns where: reason at character N.
func (e *EvalError) Error() string {
	return fmt.Sprintf("%s: %s at character %d", e.Where, e.Reason, e.At)
}

// Unwrap returns ErrEval.
func (e *EvalError) Unwrap() error { return ErrEval }

// evalFn is a compiled expression over the slots of a record or row.
type evalFn func(rec []crdt.Value) (crdt.Value, error)

// Program is a compiled expression. It is immutable and safe for concurrent use.
type Program struct {
	source string
	canon  string
	eval   evalFn
	uses   []string // functions, sorted
	bare   int      // the slot where the expression is one field alone, else -1
}

// Eval computes the expression over a record's values (Input.Fields) or a row's (key members, aggregates,
// derived values). The result may share texts
// with rec. It may be KindRaw where a field of that kind is passed through, and KindBig where a row's sum is. Errors wrap
// ErrEval.
func (p *Program) Eval(rec []crdt.Value) (crdt.Value, error) { return p.eval(rec) }

// String returns the expression as it stands in the file.
func (p *Program) String() string { return p.source }

// Bare returns the index of the field that the expression is, if it is one field and nothing else.
func (p *Program) Bare() (slot int, ok bool) { return p.bare, p.bare >= 0 }

// node is a compiled part of an expression.
type node struct {
	eval  evalFn
	typ   typeSet
	canon string
	konst bool // eval ignores its argument and cannot fail
}

// compiler turns one expression into closures. Every error it reports carries its place in the file.
type compiler struct {
	p     *parser
	at    *yaml.Node
	what  string
	s     *scope
	uses  map[string]bool
	wrong bool
	sure  bool // null does not go through: an operator or function over null fails
	told  int  // errors reported
	parts int  // compiled so far
}

// maxTold bounds the errors reported of one expression: what is wrong inside often makes the outside wrong.
const maxTold = 3

// maxParts bounds what an expression compiles to, and so what one evaluation costs: a < b < c compiles b twice, and so
// on inwards.
const maxParts = 2000

const expressionExpected = "an expression"

// expression compiles the text of a scalar; its values must be of a type in want (or null). It returns nil when it has
// reported an error.
func (p *parser) expression(n *yaml.Node, what string, s *scope, want typeSet) (*Program, typeSet) {
	return p.compile(&compiler{p: p, at: n, what: what, s: s, uses: make(map[string]bool)}, want)
}

// decision compiles a where or a key as expression does, but null does not go through it: a record whose fare is null
// is neither above 0 nor not, so `fare > 0` fails on it, and the record is invalid.
func (p *parser) decision(n *yaml.Node, what string, s *scope, want typeSet) (*Program, typeSet) {
	return p.compile(&compiler{p: p, at: n, what: what, s: s, uses: make(map[string]bool), sure: true}, want)
}

func (p *parser) compile(c *compiler, want typeSet) (*Program, typeSet) {
	tree, ok := p.tree(c.at, c.what)
	if !ok {
		return nil, anyType
	}
	return c.program(tree, c.at.Value, want)
}

// checked makes a part of a decision fail where it is null: it takes its operands' null through.
func (c *compiler) checked(n ast.Node, out node, what string) node {
	if !c.sure || out.typ&nullType == 0 {
		return out
	}
	eval, f := out.eval, c.fault(n, "%s of null", what)
	out.typ &^= nullType
	out.eval = func(rec []crdt.Value) (crdt.Value, error) {
		v, err := eval(rec)
		if err == nil && v.IsNull() {
			return v, f
		}
		return v, err
	}
	return out
}

// program compiles tree, whose text is source.
func (c *compiler) program(tree ast.Node, source string, want typeSet) (*Program, typeSet) {
	out := c.node(tree)
	c.want(tree, out, want, c.what)
	if c.wrong {
		return nil, anyType
	}
	prog := &Program{source: source, canon: out.canon, eval: out.eval, bare: -1}
	if path, ok := pathOf(tree); ok {
		prog.bare, _, _ = c.s.field(path)
		prog.eval = c.s.bareField(prog.bare, path)
	}
	for u := range c.uses {
		prog.uses = append(prog.uses, u)
	}
	slices.Sort(prog.uses)
	return prog, out.typ
}

// tree parses the text of a scalar.
func (p *parser) tree(n *yaml.Node, what string) (root ast.Node, ok bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" || strings.TrimSpace(n.Value) == "" {
		p.Fail(n, expressionExpected, "%s is %s", what, strict.KindOf(n))
		return nil, false
	}
	if len(n.Value) > MaxExpressionBytes {
		p.Fail(n, fmt.Sprintf("at most %d bytes", MaxExpressionBytes), "%s has %d bytes", what, len(n.Value))
		return nil, false
	}
	// The parser is not ours and the text comes from outside: a bug of its own must not take the process down.
	defer func() {
		if r := recover(); r != nil {
			p.Fail(n, expressionExpected, "%s cannot be read", what)
			root, ok = nil, false
		}
	}()
	tree, err := exprparser.ParseWithConfig(n.Value, &conf.Config{MaxNodes: conf.DefaultMaxNodes, Functions: allNames})
	var at *file.Error
	switch {
	case errors.As(err, &at):
		line, column := p.Place(n, at.From)
		p.FailAt(line, column, expressionExpected, "%s: %s", what, at.Message)
		return nil, false
	case err != nil:
		p.Fail(n, expressionExpected, "%s: %v", what, err)
		return nil, false
	}
	return tree.Node, true
}

// allNames makes the parser read every call as a plain one, whatever built-in of its own bears the name.
var allNames = func() conf.FunctionsTable {
	t := make(conf.FunctionsTable)
	for _, f := range builtin.Builtins {
		t[f.Name] = f
	}
	for _, name := range []string{"all", "none", "any", "one", "filter", "map", "count", "sum", "find", "findIndex",
		"findLast", "findLastIndex", "groupBy", "sortBy", "reduce"} {
		t[name] = &builtin.Function{Name: name}
	}
	return t
}()

func (c *compiler) fail(n ast.Node, expected, format string, args ...any) {
	c.wrong = true
	if c.told++; c.told > maxTold {
		return
	}
	line, column := c.p.Place(c.at, n.Location().From)
	c.p.FailAt(line, column, expected, format, args...)
}

// fault makes the error of an evaluation that fails at n.
func (c *compiler) fault(n ast.Node, format string, args ...any) *EvalError {
	return &EvalError{c.what, n.Location().From + 1, fmt.Sprintf(format, args...)}
}

// broken stands for a part that has been reported.
func (c *compiler) broken() node {
	c.wrong = true
	return node{typ: anyType}
}

func constant(v crdt.Value, t typeSet, canon string) node {
	return node{eval: func([]crdt.Value) (crdt.Value, error) { return v, nil }, typ: t, canon: canon, konst: true}
}

func (c *compiler) node(n ast.Node) node {
	if c.parts++; c.parts > maxParts {
		if c.parts == maxParts+1 {
			c.fail(n, fmt.Sprintf("at most %d parts", maxParts), "the expression is too large")
		}
		return c.broken()
	}
	if path, ok := pathOf(n); ok {
		return c.field(n, path)
	}
	switch n := n.(type) {
	case *ast.NilNode:
		return constant(crdt.Null(), nullType, "nil")
	case *ast.BoolNode:
		return constant(crdt.Bool(n.Value), boolType, strconv.FormatBool(n.Value))
	case *ast.IntegerNode:
		return constant(crdt.Int(int64(n.Value)), numberType, strconv.Itoa(n.Value))
	case *ast.FloatNode:
		if math.IsInf(n.Value, 0) || math.IsNaN(n.Value) {
			c.fail(n, "a number that a float64 holds", "a float out of range")
			return c.broken()
		}
		return constant(crdt.Float(n.Value), numberType, "float:"+strconv.FormatFloat(n.Value, 'g', -1, 64))
	case *ast.StringNode:
		if !utf8.ValidString(n.Value) {
			c.fail(n, "UTF-8", "a text that is not UTF-8")
			return c.broken()
		}
		return constant(crdt.Text(n.Value), textType, strconv.Quote(n.Value))
	case *ast.UnaryNode:
		return c.unary(n)
	case *ast.BinaryNode:
		return c.binary(n)
	case *ast.ConditionalNode:
		return c.conditional(n)
	case *ast.CallNode:
		return c.call(n)
	}
	c.fail(n, "fields, literals, operators and functions: "+strings.Join(functionNames, ", "),
		"%s is not supported", construct(n))
	return c.broken()
}

// construct names a part of the expression language that jobs do without.
func construct(n ast.Node) string {
	switch n.(type) {
	case *ast.ArrayNode:
		return "a list but behind in"
	case *ast.MapNode:
		return "a map"
	case *ast.SliceNode:
		return "a slice"
	case *ast.MemberNode:
		return "an index"
	case *ast.ChainNode:
		return "?. (a member of what is absent is null)"
	case *ast.SequenceNode, *ast.VariableDeclaratorNode:
		return "more than one expression"
	}
	return "this"
}

// pathOf returns the names of a field: a, a.b, $["a b"], $["a b"].c.
func pathOf(n ast.Node) ([]string, bool) {
	switch n := n.(type) {
	case *ast.IdentifierNode:
		return []string{n.Value}, n.Value != "$" && n.Value != "$env"
	case *ast.MemberNode:
		name, ok := n.Property.(*ast.StringNode)
		if !ok || n.Optional || n.Method || name.Value == "" || len(name.Value) > maxFieldName {
			return nil, false
		}
		if id, ok := n.Node.(*ast.IdentifierNode); ok && (id.Value == "$" || id.Value == "$env") {
			return []string{name.Value}, true
		}
		path, ok := pathOf(n.Node)
		return append(path, name.Value), ok
	}
	return nil, false
}

func (c *compiler) field(n ast.Node, path []string) node {
	slot, t, problem := c.s.field(path)
	if problem != "" {
		c.fail(n, "a field of "+c.s.what, "%s", problem)
		return c.broken()
	}
	out := fieldNode(slot, path, t)
	tooBig := c.fault(n, "%s is an integer too big for a float", strings.Join(path, "."))
	out.eval = func(rec []crdt.Value) (crdt.Value, error) {
		v := rec[slot]
		if v.Kind() == crdt.KindBig {
			return bigToFloat(v, tooBig)
		}
		return v, nil
	}
	return out
}

func fieldNode(slot int, path []string, t typeSet) node {
	quoted := make([]string, len(path))
	for i, name := range path {
		quoted[i] = strconv.Quote(name)
	}
	return node{typ: t, canon: "$[" + strings.Join(quoted, "][") + "]"}
}

// bigToFloat lets an integer beyond 64 bits enter an expression.
func bigToFloat(v crdt.Value, tooBig *EvalError) (crdt.Value, error) {
	f, err := strconv.ParseFloat(v.Text(), 64)
	if err != nil || math.IsInf(f, 0) {
		return crdt.Value{}, tooBig
	}
	return crdt.Float(f), nil
}

// bareField is an expression that is a field alone: nothing converts the value, and an integer beyond 64 bits of a record
// is invalid where it is used.
func (s *scope) bareField(slot int, path []string) evalFn {
	if !s.record {
		return func(rec []crdt.Value) (crdt.Value, error) { return rec[slot], nil }
	}
	tooBig := &EvalError{strings.Join(path, "."), 1, "an integer beyond 64 bits"}
	return func(rec []crdt.Value) (crdt.Value, error) {
		v := rec[slot]
		if v.Kind() == crdt.KindBig {
			return crdt.Value{}, tooBig
		}
		return v, nil
	}
}

// conditional compiles cond ? a : b. A null condition counts as false.
func (c *compiler) conditional(n *ast.ConditionalNode) node {
	cond, a, b := c.node(n.Cond), c.node(n.Exp1), c.node(n.Exp2)
	c.want(n.Cond, cond, boolType, "the condition of ?:")
	f := c.fault(n, "the condition of ?: is neither true nor false")
	return node{
		typ:   a.typ | b.typ,
		canon: "(? " + cond.canon + " " + a.canon + " " + b.canon + ")",
		eval: func(rec []crdt.Value) (crdt.Value, error) {
			v, err := cond.eval(rec)
			if err != nil {
				return v, err
			}
			switch {
			case v.Kind() == crdt.KindBool && v.Bool():
				return a.eval(rec)
			case v.Kind() == crdt.KindBool || v.Kind() == crdt.KindNull:
				return b.eval(rec)
			}
			return crdt.Value{}, f
		},
	}
}

// want reports a part that can never have a type that its place takes.
func (c *compiler) want(at ast.Node, n node, t typeSet, what string) {
	if !n.typ.fits(t) {
		c.fail(at, t.String(), "%s is %s", what, n.typ)
	}
}
