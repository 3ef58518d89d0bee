package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/watershed-db/watershed/jepsen/oracle"
)

// answer is what `query --output json` prints.
type answer struct {
	Rows    []json.RawMessage `json:"rows"`
	Shards  map[string]state  `json:"shards"`
	Missing []string          `json:"missing"`
	state
}

// state is what a shard's part of an answer reflects; of the whole answer it is the least over the shards.
type state struct {
	Frontiers map[string]map[string]int64 `json:"frontiers"` // region -> topic/partition -> offset
	Watermark *string                     `json:"watermark"`
}

// row is one row of an answer.
type row struct {
	line     string // as a bounded run prints it
	key      string // the JSON of its key
	revision int64
	complete bool
	shard    int
}

var (
	ending  = regexp.MustCompile(`,"revision":(\d+),"complete":(true|false)}$`)
	keyPart = regexp.MustCompile(`^{"window_start":[^,]*,"window_end":[^,]*,"key":`)
	ofShard = regexp.MustCompile(`,"shard":(\d+)}$`)
)

// parseRow takes a row's own members off its end.
func parseRow(t testing.TB, raw []byte) row {
	t.Helper()
	var compact bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil {
		t.Fatalf("row %q: %v", raw, err)
	}
	line, r := compact.String(), row{shard: -1}
	if m := ofShard.FindStringSubmatch(line); m != nil {
		line = strings.TrimSuffix(line, m[0]) + "}"
		if _, err := fmt.Sscan(m[1], &r.shard); err != nil {
			t.Fatal(err)
		}
	}
	m := ending.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("row %q does not end in revision and complete", line)
	}
	if _, err := fmt.Sscan(m[1], &r.revision); err != nil {
		t.Fatal(err)
	}
	r.complete = m[2] == "true"
	r.line = strings.TrimSuffix(line, m[0]) + "}"
	r.key = keyOf(t, r.line)
	return r
}

// keyOf cuts the JSON of its key out of a row.
func keyOf(t testing.TB, line string) string {
	t.Helper()
	head := keyPart.FindString(line)
	if head == "" {
		t.Fatalf("row %q does not begin with bounds and key", line)
	}
	dec := json.NewDecoder(strings.NewReader(line[len(head):]))
	var key json.RawMessage
	if err := dec.Decode(&key); err != nil {
		t.Fatalf("row %q: %v", line, err)
	}
	return string(key)
}

func (a *answer) rows(t testing.TB) []row {
	t.Helper()
	out := make([]row, len(a.Rows))
	for i, raw := range a.Rows {
		out[i] = parseRow(t, raw)
		if out[i].shard < 0 {
			t.Fatalf("row %s names no shard", raw)
		}
	}
	return out
}

// lines joins rows as a bounded run prints them.
func lines(rows []row) []byte {
	var out bytes.Buffer
	for _, r := range rows {
		out.WriteString(r.line + "\n")
	}
	return out.Bytes()
}

// query asks a region. A region that can't answer is an error with what the command said.
func (d *deployment) query(region, job string, flags ...string) (*answer, error) {
	d.t.Helper()
	args := append([]string{"query", job, "--output", "json", "--timeout", "30s"}, d.endpoint(region)...)
	r := watershed(d.t, nil, append(args, flags...)...)
	if r.status != 0 {
		return nil, fmt.Errorf("query %s in %s: status %d: %s", job, region, r.status, bytes.TrimSpace(r.stderr))
	}
	a := new(answer)
	if err := json.Unmarshal(r.stdout, a); err != nil {
		return nil, fmt.Errorf("query %s in %s: %w: %.200s", job, region, err, r.stdout)
	}
	return a, nil
}

// points turns a frontier into what the oracle takes, by the topics' own names.
func (l *load) points(f map[string]map[string]int64) map[oracle.Source]int64 {
	points := map[oracle.Source]int64{}
	for _, p := range l.logs {
		at := f[p.Region][fmt.Sprintf("%s/%d", l.topics[p.Topic], p.Number)]
		for input := range l.inputs() {
			points[oracle.Source{Input: input, Region: p.Region, Topic: p.Topic, Partition: p.Number}] = at
		}
	}
	return points
}

// inputs is the number of sources of the job.
func (l *load) inputs() int { return bytes.Count(l.file, []byte("- topic: ")) }

// shared says whether two sources read one topic, so that a frontier does not say where each of them is.
func (l *load) shared() bool { return l.inputs() > len(l.topics) }

// atEnds says whether every shard of an answer has taken everything.
func (l *load) atEnds(a *answer) (bool, string) {
	if len(a.Shards) == 0 {
		return false, "no shard answered"
	}
	for _, shard := range slices.Sorted(maps.Keys(a.Shards)) {
		points := l.points(a.Shards[shard].Frontiers)
		for _, p := range l.logs {
			at := points[oracle.Source{Region: p.Region, Topic: p.Topic, Partition: p.Number}]
			if end := int64(len(p.Records)); at > end || at < end {
				return false, fmt.Sprintf("%s: shard %s is at %d of %d in %s/%s/%d", l.job, shard, at, end, p.Region,
					l.topics[p.Topic], p.Number)
			}
		}
	}
	return true, ""
}

// settle waits until a region has taken everything of a load, and returns what it answers then.
func (d *deployment) settle(region string, l *load) *answer {
	d.t.Helper()
	var last *answer
	await(d.t, settleWithin, fmt.Sprintf("%s to take all of %s", region, l.job), func() (bool, string) {
		a, err := d.query(region, l.job)
		if err != nil {
			return false, err.Error()
		}
		last = a
		return l.atEnds(a)
	})
	return last
}

// checkWhole compares the rows of an answer at the logs' ends with the oracle's.
func (l *load) checkWhole(t testing.TB, region string, a *answer) {
	t.Helper()
	want, err := l.oracle.Run(l.logs)
	if err != nil {
		t.Fatal(err)
	}
	rows := a.rows(t)
	sameRows(t, l.job+" in "+region, lines(rows), want.Bytes())
	for i, r := range rows {
		if i < len(want.Rows) && r.line == string(want.Rows[i].Line) && r.revision != want.Rows[i].Records {
			t.Errorf("%s in %s: revision %d of %d records: %s", l.job, region, r.revision, want.Rows[i].Records, r.line)
			return
		}
	}
}

// checkPrefix compares each shard's rows of an answer with what the oracle makes of the records below the shard's points.
// of tells the shard of a key, from a later answer that holds all keys.
func (l *load) checkPrefix(t testing.TB, what string, a *answer, of map[string]int) {
	t.Helper()
	got := map[int][]row{}
	for _, r := range a.rows(t) {
		got[r.shard] = append(got[r.shard], r)
	}
	made := map[string]oracle.Result{} // shards that stand at the same points share a result
	for name, s := range a.Shards {
		var shard int
		if _, err := fmt.Sscan(name, &shard); err != nil {
			t.Fatal(err)
		}
		points := l.points(s.Frontiers)
		all, run := made[fmt.Sprint(points)]
		if !run {
			var err error
			if all, err = l.oracle.RunTo(l.logs, points); err != nil {
				t.Fatal(err)
			}
			made[fmt.Sprint(points)] = all
		}
		var want bytes.Buffer
		for _, r := range all.Rows {
			if at, known := of[keyOf(t, string(r.Line))]; known && at == shard {
				want.Write(append(r.Line, '\n'))
			}
		}
		inShard := slices.DeleteFunc(got[shard], func(r row) bool { _, ok := of[r.key]; return !ok })
		sameRows(t, fmt.Sprintf("%s: %s, shard %d", what, l.job, shard), lines(inShard), want.Bytes())
	}
}

// shardsOf tells the shard of every key of an answer.
func shardsOf(t testing.TB, a *answer) map[string]int {
	t.Helper()
	of := map[string]int{}
	for _, r := range a.rows(t) {
		of[r.key] = r.shard
	}
	return of
}
