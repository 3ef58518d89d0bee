package job

import (
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/watershed-db/watershed/crdt"
)

func isText(v crdt.Value) bool { return v.Kind() == crdt.KindText || v.Kind() == crdt.KindRaw }

func isNumber(v crdt.Value) bool { return v.Kind() == crdt.KindInt || v.Kind() == crdt.KindFloat }

// logic is three-valued && (stop = false) or || (stop = true): what decides alone decides, null is unknown. The right
// side is not evaluated where the left one decides.
func logic(l, r evalFn, stop bool, f *EvalError) evalFn {
	return func(rec []crdt.Value) (crdt.Value, error) {
		x, err := l(rec)
		switch {
		case err != nil:
			return x, err
		case x.Kind() == crdt.KindBool && x.Bool() == stop:
			return x, nil
		case x.Kind() != crdt.KindBool && !x.IsNull():
			return crdt.Value{}, f
		}
		y, err := r(rec)
		switch {
		case err != nil:
			return y, err
		case y.Kind() == crdt.KindBool && y.Bool() == stop:
			return y, nil
		case y.Kind() != crdt.KindBool && !y.IsNull():
			return crdt.Value{}, f
		case x.IsNull():
			return x, nil
		}
		return y, nil
	}
}

// equal compares values of any types.
func equal(x, y crdt.Value) bool {
	if x.Kind() == crdt.KindRaw {
		x, y = y, x
	}
	if y.Kind() == crdt.KindRaw {
		switch x.Kind() {
		case crdt.KindInt, crdt.KindFloat:
			n, ok := number(y)
			return ok && crdt.Compare(x, n) == 0
		case crdt.KindBool:
			return x.Bool() && y.Text() == "true" || !x.Bool() && y.Text() == "false"
		case crdt.KindText, crdt.KindRaw:
			return x.Text() == y.Text()
		}
		return false
	}
	return crdt.Compare(x, y) == 0
}

func equality(l, r evalFn, negate bool) evalFn {
	return func(rec []crdt.Value) (crdt.Value, error) {
		x, err := l(rec)
		if err != nil {
			return x, err
		}
		y, err := r(rec)
		if err != nil {
			return y, err
		}
		return crdt.Bool(equal(x, y) != negate), nil
	}
}

// order compares two numbers or two texts.
func order(x, y crdt.Value) (int, bool) {
	switch {
	case isNumber(x) && isNumber(y):
		return crdt.Compare(x, y), true
	case isText(x) && isText(y):
		return strings.Compare(x.Text(), y.Text()), true
	case isNumber(x) && y.Kind() == crdt.KindRaw:
		n, ok := number(y)
		return crdt.Compare(x, n), ok
	case x.Kind() == crdt.KindRaw && isNumber(y):
		n, ok := number(x)
		return crdt.Compare(n, y), ok
	}
	return 0, false
}

func ordering(l, r evalFn, op string, f *EvalError) evalFn {
	// The result of a comparison by c + 1, where c is -1, 0 or 1.
	var holds [3]bool
	switch op {
	case "<":
		holds[0] = true
	case "<=":
		holds[0], holds[1] = true, true
	case ">":
		holds[2] = true
	case ">=":
		holds[1], holds[2] = true, true
	}
	return func(rec []crdt.Value) (crdt.Value, error) {
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
		c, ok := order(x, y)
		if !ok {
			return crdt.Value{}, f
		}
		return crdt.Bool(holds[c+1]), nil
	}
}

func textual(l, r evalFn, test func(string, string) bool, f *EvalError) evalFn {
	return func(rec []crdt.Value) (crdt.Value, error) {
		x, err := l(rec)
		if err != nil {
			return x, err
		}
		y, err := r(rec)
		switch {
		case err != nil:
			return y, err
		case x.IsNull() || y.IsNull():
			return crdt.Null(), nil
		case !isText(x) || !isText(y):
			return crdt.Value{}, f
		}
		return crdt.Bool(test(x.Text(), y.Text())), nil
	}
}

// in compiles x in [a, b, ...]: a chain of ==.
func (c *compiler) in(n *ast.BinaryNode) node {
	x := c.node(n.Left)
	list, ok := n.Right.(*ast.ArrayNode)
	if !ok {
		c.fail(n.Right, `a list such as ["a", "b"]`, "the right of in is no list")
		return c.broken()
	}
	canon := "(in " + x.canon
	items := make([]evalFn, len(list.Nodes))
	for i, item := range list.Nodes {
		k := c.node(item)
		items[i] = k.eval
		canon += " " + k.canon
	}
	return node{typ: boolType, canon: canon + ")", eval: func(rec []crdt.Value) (crdt.Value, error) {
		v, err := x.eval(rec)
		if err != nil {
			return v, err
		}
		for _, item := range items {
			k, err := item(rec)
			if err != nil {
				return k, err
			}
			if equal(v, k) {
				return crdt.Bool(true), nil
			}
		}
		return crdt.Bool(false), nil
	}}
}

// coalesce is the first of its parts that is not null; those behind it are not evaluated.
func coalesce(parts []node) node {
	out := node{canon: "(??"}
	evals := make([]evalFn, len(parts))
	for i, p := range parts {
		out.canon += " " + p.canon
		out.typ |= p.typ &^ nullType
		evals[i] = p.eval
	}
	out.canon += ")"
	out.typ |= parts[len(parts)-1].typ & nullType
	out.eval = func(rec []crdt.Value) (crdt.Value, error) {
		for _, e := range evals {
			if v, err := e(rec); err != nil || !v.IsNull() {
				return v, err
			}
		}
		return crdt.Null(), nil
	}
	return out
}
