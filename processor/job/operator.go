package job

import (
	"math"
	"math/bits"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/watershed-db/watershed/crdt"
)

// What operators do with values, so that every replica computes the same:
//
//   - Null goes through: an operator or function over null is null. But == and != compare null like any value, && and ||
//     are three-valued, ?? and coalesce look for the first that is not null, and in is a chain of ==.
//   - Integers stay integers under + - * % and unary -; a result beyond 64 bits is an error. One float makes the result a
//     float. / always divides as floats. A result that is NaN or infinite is an error, and so is % of a float.
//   - An untyped text of a CSV file counts as a number where a number is asked for, and in comparisons with a number; else
//     it is a text. + joins texts where one side is a text proper; two untyped ones are added.
//   - Numbers compare exactly by size, texts by bytes. < <= > >= between other types are an error, == is false.

// maxText bounds a text that an expression makes.
const maxText = 1 << 20

func (c *compiler) unary(n *ast.UnaryNode) node {
	x := c.node(n.Node)
	canon := "(" + n.Operator + " " + x.canon + ")"
	switch n.Operator {
	case "!", "not":
		c.want(n.Node, x, boolType, "what ! negates")
		f := c.fault(n, "! of what is neither true nor false")
		return node{typ: boolType | x.typ&nullType, canon: "(! " + x.canon + ")",
			eval: func(rec []crdt.Value) (crdt.Value, error) {
				v, err := x.eval(rec)
				switch {
				case err != nil || v.IsNull():
					return v, err
				case v.Kind() != crdt.KindBool:
					return crdt.Value{}, f
				}
				return crdt.Bool(!v.Bool()), nil
			}}
	case "-", "+":
		c.want(n.Node, x, numberType, "what "+n.Operator+" is put before")
		f, over := c.fault(n, "%s before what is no number", n.Operator), c.fault(n, "integer overflow in -")
		minus := n.Operator == "-"
		return c.checked(n, node{typ: numberType | x.typ&nullType, canon: canon,
			eval: func(rec []crdt.Value) (crdt.Value, error) {
				v, err := x.eval(rec)
				if err != nil || v.IsNull() {
					return v, err
				}
				v, ok := number(v)
				switch {
				case !ok:
					return v, f
				case !minus:
					return v, nil
				case v.Kind() == crdt.KindFloat:
					return crdt.Float(-v.Float()), nil
				case v.Int() == math.MinInt64:
					return crdt.Value{}, over
				}
				return crdt.Int(-v.Int()), nil
			}}, n.Operator)
	}
	c.fail(n, "! or -", "operator %s is not supported", n.Operator)
	return c.broken()
}

func (c *compiler) binary(n *ast.BinaryNode) node {
	if n.Operator == "in" {
		return c.in(n)
	}
	if n.Operator == "??" {
		c.s.optional++
		a, b := c.node(n.Left), c.node(n.Right)
		c.s.optional--
		return coalesce([]node{a, b})
	}
	a, b := c.node(n.Left), c.node(n.Right)
	nulls := (a.typ | b.typ) & nullType
	out := node{canon: "(" + n.Operator + " " + a.canon + " " + b.canon + ")"}
	switch n.Operator {
	case "&&", "and", "||", "or":
		c.want(n.Left, a, boolType, "the left of "+n.Operator)
		c.want(n.Right, b, boolType, "the right of "+n.Operator)
		out.typ = boolType | nulls
		op := map[string]string{"and": "&&", "or": "||"}[n.Operator]
		if op == "" {
			op = n.Operator
		}
		out.canon = "(" + op + " " + a.canon + " " + b.canon + ")"
		out.eval = logic(a.eval, b.eval, op == "||", c.fault(n, "%s of what is neither true nor false", op))
	case "==", "!=":
		out.typ = boolType
		out.eval = equality(a.eval, b.eval, n.Operator == "!=")
	case "<", "<=", ">", ">=":
		c.ordered(n, a, b)
		out.typ = boolType | nulls
		out.eval = ordering(a.eval, b.eval, n.Operator, c.fault(n, "%s of values that have no order", n.Operator))
		out = c.checked(n, out, n.Operator)
	case "+", "-", "*", "/", "%":
		out = c.checked(n, c.arithmetic(n, a, b, out), n.Operator)
	case "contains", "startsWith", "endsWith":
		c.want(n.Left, a, textType, "the left of "+n.Operator)
		c.want(n.Right, b, textType, "the right of "+n.Operator)
		out.typ = boolType | nulls
		test := map[string]func(string, string) bool{"contains": strings.Contains, "startsWith": strings.HasPrefix,
			"endsWith": strings.HasSuffix}[n.Operator]
		out.eval = textual(a.eval, b.eval, test, c.fault(n, "%s of what is no text", n.Operator))
		out = c.checked(n, out, n.Operator)
	default:
		c.fail(n, "one of + - * / % == != < <= > >= && || ! in contains startsWith endsWith ?? ?:",
			"operator %s is not supported", n.Operator)
		return c.broken()
	}
	return out
}

// ordered reports a comparison of things that never have an order.
func (c *compiler) ordered(n *ast.BinaryNode, a, b node) {
	const comparable = numberType | textType
	if a.typ&b.typ&comparable == 0 && a.typ != nullType && b.typ != nullType {
		c.fail(n, "two numbers or two texts", "%s between %s and %s", n.Operator, a.typ, b.typ)
	}
}

func (c *compiler) arithmetic(n *ast.BinaryNode, a, b node, out node) node {
	takes := numberType
	if n.Operator == "+" {
		takes |= textType
	}
	c.want(n.Left, a, takes, "the left of "+n.Operator)
	c.want(n.Right, b, takes, "the right of "+n.Operator)
	out.typ = (a.typ|b.typ)&nullType | a.typ&b.typ&takes
	f := &arithmeticFaults{
		types:    c.fault(n, "%s of what is no number", n.Operator),
		overflow: c.fault(n, "integer overflow in %s", n.Operator),
		zero:     c.fault(n, "%s by zero", n.Operator),
		finite:   c.fault(n, "%s gives no finite number", n.Operator),
		long:     c.fault(n, "+ makes a text of more than %d bytes", maxText),
	}
	op := map[string]func(x, y crdt.Value, f *arithmeticFaults) (crdt.Value, error){
		"+": add, "-": subtract, "*": multiply, "/": divide, "%": modulo}[n.Operator]
	if !c.wrong && out.typ == 0 {
		c.fail(n, "two numbers or two texts", "%s between %s and %s", n.Operator, a.typ, b.typ)
	}
	l, r := a.eval, b.eval
	out.eval = func(rec []crdt.Value) (crdt.Value, error) {
		x, err := l(rec)
		if err != nil {
			return x, err
		}
		y, err := r(rec)
		if err != nil {
			return y, err
		}
		if x.IsNull() || y.IsNull() {
			return crdt.Null(), nil
		}
		return op(x, y, f)
	}
	return out
}

type arithmeticFaults struct{ types, overflow, zero, finite, long *EvalError }

// number returns v as an integer or float, converting an untyped text.
func number(v crdt.Value) (crdt.Value, bool) {
	switch v.Kind() {
	case crdt.KindInt, crdt.KindFloat:
		return v, true
	case crdt.KindRaw:
		n, err := crdt.ParseNumber(v.Text())
		if err == nil && n.Kind() == crdt.KindBig {
			n, err = bigToFloat(n, errTooBig)
		}
		return n, err == nil
	}
	return crdt.Value{}, false
}

var errTooBig = &EvalError{Reason: "an integer too big for a float"}

// numbers returns both as integers (floats = false) or both as floats.
func numbers(x, y crdt.Value) (a, b crdt.Value, floats, ok bool) {
	if x.Kind() == crdt.KindInt && y.Kind() == crdt.KindInt {
		return x, y, false, true
	}
	a, ok = number(x)
	if !ok {
		return
	}
	b, ok = number(y)
	if !ok || a.Kind() == crdt.KindInt && b.Kind() == crdt.KindInt {
		return
	}
	return crdt.Float(asFloat(a)), crdt.Float(asFloat(b)), true, true
}

// asFloat returns a number as a float, rounded to the nearest.
func asFloat(v crdt.Value) float64 {
	if v.Kind() == crdt.KindInt {
		return float64(v.Int())
	}
	return v.Float()
}

func finite(f float64, fault *EvalError) (crdt.Value, error) {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return crdt.Value{}, fault
	}
	return crdt.Float(f), nil
}

func add(x, y crdt.Value, f *arithmeticFaults) (crdt.Value, error) {
	if x.Kind() == crdt.KindText || y.Kind() == crdt.KindText {
		if !isText(x) || !isText(y) {
			return crdt.Value{}, f.types
		}
		if len(x.Text())+len(y.Text()) > maxText {
			return crdt.Value{}, f.long
		}
		return crdt.Text(x.Text() + y.Text()), nil
	}
	x, y, floats, ok := numbers(x, y)
	if !ok {
		return crdt.Value{}, f.types
	}
	if floats {
		return finite(x.Float()+y.Float(), f.finite)
	}
	a, b := x.Int(), y.Int()
	s := a + b
	if (s > a) != (b > 0) && b != 0 {
		return crdt.Value{}, f.overflow
	}
	return crdt.Int(s), nil
}

func subtract(x, y crdt.Value, f *arithmeticFaults) (crdt.Value, error) {
	x, y, floats, ok := numbers(x, y)
	if !ok {
		return crdt.Value{}, f.types
	}
	if floats {
		return finite(x.Float()-y.Float(), f.finite)
	}
	a, b := x.Int(), y.Int()
	d := a - b
	if (d < a) != (b > 0) && b != 0 {
		return crdt.Value{}, f.overflow
	}
	return crdt.Int(d), nil
}

func multiply(x, y crdt.Value, f *arithmeticFaults) (crdt.Value, error) {
	x, y, floats, ok := numbers(x, y)
	if !ok {
		return crdt.Value{}, f.types
	}
	if floats {
		return finite(float64(x.Float()*y.Float()), f.finite)
	}
	a, b := x.Int(), y.Int()
	hi, lo := bits.Mul64(magnitude(a), magnitude(b))
	negative := (a < 0) != (b < 0)
	switch {
	case hi != 0 || lo > 1<<63 || lo == 1<<63 && !negative:
		return crdt.Value{}, f.overflow
	case negative:
		return crdt.Int(-int64(lo)), nil
	}
	return crdt.Int(int64(lo)), nil
}

func magnitude(i int64) uint64 {
	if i < 0 {
		return -uint64(i)
	}
	return uint64(i)
}

func divide(x, y crdt.Value, f *arithmeticFaults) (crdt.Value, error) {
	a, ok := number(x)
	b, ok2 := number(y)
	if !ok || !ok2 {
		return crdt.Value{}, f.types
	}
	d := asFloat(b)
	if d == 0 {
		return crdt.Value{}, f.zero
	}
	return finite(asFloat(a)/d, f.finite)
}

func modulo(x, y crdt.Value, f *arithmeticFaults) (crdt.Value, error) {
	x, y, floats, ok := numbers(x, y)
	switch {
	case !ok || floats:
		return crdt.Value{}, f.types
	case y.Int() == 0:
		return crdt.Value{}, f.zero
	case y.Int() == -1: // MinInt64 % -1 traps on some machines
		return crdt.Int(0), nil
	}
	return crdt.Int(x.Int() % y.Int()), nil
}
