package cases

import (
	"bytes"
	"time"

	"github.com/watershed-db/watershed/jepsen/oracle"
)

// wiki lists the cases over a day's edits of Wikipedias: one topic, one partition, in time order.
func wiki() []Case {
	all := []Case{
		{Name: "wiki-tumbling", Shows: "tumbling windows over one field"},
		{
			Name:  "wiki-hopping",
			Shows: "hopping windows, a key of two fields, an expression as argument",
			exprs: map[string]oracle.Expr{"added - deleted": difference("added", "deleted")},
		},
		{Name: "wiki-session", Shows: "sessions of users; first and last"},
		{Name: "wiki-global", Shows: "one window for ever; null and boolean keys; distinct, avg, stddev, min, max"},
		{
			Name:  "wiki-filtered",
			Shows: "where, derive over null, having",
			exprs: map[string]oracle.Expr{
				"!isRobot && delta < 0": func(e env) (oracle.Value, error) {
					robot, err := is(e, "isRobot")
					if err != nil || robot {
						return oracle.MakeBool(false), err
					}
					delta, err := e("delta").AsInt()
					return oracle.MakeBool(delta < 0), err
				},
				"removed / metros": compute(func(x []float64) float64 { return x[0] / x[1] }, "removed", "metros"),
				"removed < -100":   test(func(x []float64) bool { return x[0] < -100 }, "removed"),
			},
		},
		{
			Name:  "wiki-two-sources",
			Shows: "one topic in two sources, told apart by where",
			exprs: map[string]oracle.Expr{
				"!isRobot": not("isRobot"),
				"bot_edits / (bot_edits + edits)": compute(func(x []float64) float64 { return x[0] / (x[0] + x[1]) },
					"bot_edits", "edits"),
				"edits > 0": test(func(x []float64) bool { return x[0] > 0 }, "edits"),
			},
		},
	}
	poisoned := Case{Name: "wiki-poisoned", Shows: "real records, some made late, some from the future, some broken"}
	poisoned.inputs = func() ([]Input, error) {
		lines, err := dataLines("wiki-edits.jsonl.gz")
		return []Input{{Topic: "wiki-edits", Format: "json", Lines: poisonEdits(lines)}}, err
	}
	for i := range all {
		all[i].RecordTime = time.Date(2015, 9, 13, 0, 0, 0, 0, time.UTC)
		all[i].inputs = func() ([]Input, error) {
			lines, err := dataLines("wiki-edits.jsonl.gz")
			return []Input{{Topic: "wiki-edits", Format: "json", Lines: lines}}, err
		}
	}
	poisoned.RecordTime = all[0].RecordTime
	return append(all, poisoned)
}

// poisonEdits holds one edit in fifty back, a few lines or very many, and spoils some others.
func poisonEdits(lines [][]byte) [][]byte {
	held := map[int][][]byte{}
	var out [][]byte
	for i, line := range lines {
		out = append(out, held[i]...)
		switch {
		case i%50 == 7:
			back := min(i+1+i*37%2501, len(lines)-1)
			held[back] = append(held[back], line)
			continue
		case i%101 == 3:
			line = bytes.Replace(line, []byte(`"time":"2015-`), []byte(`"time":"2016-`), 1)
		case i%103 == 5:
			line = line[:len(line)/2]
		case i%107 == 6:
			line = bytes.Replace(line, []byte(`"added":`), []byte(`"delta":`), 1) // that name is there already
		case i%109 == 8:
			line = bytes.Replace(line, []byte(`"added":`), []byte(`"added":"about ",`), 1) // no JSON any more
		case i%113 == 9:
			line = bytes.Replace(line, []byte(`"user":`), []byte(`"username":`), 1)
		case i%127 == 10:
			line = bytes.Replace(line, []byte(`"channel":`), []byte(`"canal":`), 1)
		}
		out = append(out, line)
	}
	return out
}

// difference is a - b of integers that can't overflow here.
func difference(a, b string) oracle.Expr {
	return func(e env) (oracle.Value, error) {
		x, err := e(a).AsInt()
		if err != nil {
			return oracle.Value{}, err
		}
		y, err := e(b).AsInt()
		return oracle.MakeInt(x - y), err
	}
}
