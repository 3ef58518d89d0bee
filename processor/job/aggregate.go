package job

import (
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/strict"
	"go.yaml.in/yaml/v3"
)

// aggregator is an aggregate of the job file: how many arguments it takes, and whether it is done yet.
type aggregator struct {
	least, most int
	later       bool
	usage       string
}

var aggregators = map[string]aggregator{
	"count":           {0, 1, false, "count() or count(x)"},
	"sum":             {1, 1, false, "sum(x)"},
	"min":             {1, 1, false, "min(x)"},
	"max":             {1, 1, false, "max(x)"},
	"avg":             {1, 1, false, "avg(x)"},
	"stddev":          {1, 1, false, "stddev(x)"},
	"distinct":        {1, 1, false, "distinct(x)"},
	"first":           {1, 1, false, "first(x)"},
	"last":            {1, 1, false, "last(x)"},
	"approx_distinct": {1, 1, true, "approx_distinct(x)"},
	"quantile":        {2, 2, true, "quantile(x, 0.99)"},
	"topk":            {2, 2, true, "topk(x, n)"},
	"argmax":          {2, maxArguments, true, "argmax(v, x...)"},
	"argmin":          {2, maxArguments, true, "argmin(v, x...)"},
	"collect":         {2, 2, true, "collect(x, n)"},
}

var aggregatorNames = func() []string {
	var names []string
	for name, a := range aggregators {
		if !a.later {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}()

func isAggregate(name string) bool {
	_, ok := aggregators[name]
	return ok
}

const aggregatesExpected = "names and aggregates such as {requests: count(), fares: sum(fare)}"

func (p *parser) aggregates(n *yaml.Node, what string, s *scope, input int) {
	members := p.Pairs(n, what, aggregatesExpected)
	if n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		p.Fail(n, aggregatesExpected, "%s is empty", what)
	}
	for _, m := range members {
		if len(p.job.Aggregates) == MaxAggregates {
			p.Fail(m.Key, "", "more than %d aggregates", MaxAggregates)
			return
		}
		name := m.Key.Value
		claimed := p.claim(m.Key, "aggregate", name, memberName)
		a, ok := p.aggregate(m.Value, what+"."+name, s)
		if a.Name, a.Input = name, input; claimed && ok {
			p.job.Aggregates = append(p.job.Aggregates, a)
		}
	}
}

// aggregate reads one call of an aggregate.
func (p *parser) aggregate(n *yaml.Node, what string, s *scope) (Aggregate, bool) {
	tree, ok := p.tree(n, what)
	if !ok {
		return Aggregate{}, false
	}
	c := &compiler{p: p, at: n, what: what, s: s, uses: make(map[string]bool)}
	one := "one of " + strings.Join(aggregatorNames, ", ")
	call, ok := tree.(*ast.CallNode)
	if !ok {
		c.fail(tree, "an aggregate such as sum(fare): "+one, "%s is no call of an aggregate", what)
		return Aggregate{}, false
	}
	id, ok := call.Callee.(*ast.IdentifierNode)
	if !ok {
		c.fail(tree, one, "%s is no call of an aggregate", what)
		return Aggregate{}, false
	}
	kind, ok := aggregators[id.Value]
	switch {
	case !ok:
		c.fail(tree, one, "unknown aggregate %q%s", strict.Shorten(id.Value), strict.DidYouMean(id.Value, aggregatorNames))
		return Aggregate{}, false
	case len(call.Arguments) < kind.least || len(call.Arguments) > kind.most:
		c.fail(tree, kind.usage, "%s with %d arguments", id.Value, len(call.Arguments))
		return Aggregate{}, false
	case kind.later:
		c.fail(tree, one, "aggregate %s is not supported yet", id.Value)
		for _, arg := range call.Arguments {
			c.node(arg)
		}
		return Aggregate{}, false
	case len(call.Arguments) == 0:
		return Aggregate{Op: crdt.OpRecords}, true
	}
	op, ok := crdt.ParseOp(id.Value)
	if !ok {
		panic(fmt.Sprintf("job: crdt knows no aggregate %q", id.Value))
	}
	want := anyType
	if op == crdt.OpSum || op == crdt.OpAvg || op == crdt.OpStddev {
		want = numberType
	}
	arg, _ := c.program(call.Arguments[0], n.Value, want)
	return Aggregate{Op: op, Arg: arg}, arg != nil
}
