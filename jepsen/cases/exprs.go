package cases

import (
	"errors"

	"github.com/watershed-db/watershed/jepsen/oracle"
)

// env finds what an expression names.
type env = func(name string) oracle.Value

// compute is an expression in float arithmetic over numbers; a null or a text among them fails it.
func compute(f func(x []float64) float64, names ...string) oracle.Expr {
	return func(e env) (oracle.Value, error) {
		x, err := floats(e, names)
		if err != nil {
			return oracle.Value{}, err
		}
		return oracle.MakeFloat(f(x)), nil
	}
}

// test is a condition over numbers.
func test(f func(x []float64) bool, names ...string) oracle.Expr {
	return func(e env) (oracle.Value, error) {
		x, err := floats(e, names)
		if err != nil {
			return oracle.Value{}, err
		}
		return oracle.MakeBool(f(x)), nil
	}
}

func floats(e env, names []string) ([]float64, error) {
	x := make([]float64, len(names))
	for i, name := range names {
		var err error
		if x[i], err = e(name).AsFloat(); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// cell is geohash over two fields.
func cell(lat, lon string, length int) oracle.Expr {
	return func(e env) (oracle.Value, error) { return oracle.Geohash(e(lat), e(lon), length) }
}

var errNotBool = errors.New("not a boolean")

// is and not take a boolean field.
func is(e env, name string) (bool, error) {
	v := e(name)
	if v.Kind != oracle.Bool {
		return false, errNotBool
	}
	return v.Bool, nil
}

func not(name string) oracle.Expr {
	return func(e env) (oracle.Value, error) {
		b, err := is(e, name)
		return oracle.MakeBool(!b), err
	}
}
