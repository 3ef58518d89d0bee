package cases

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/watershed-db/watershed/jepsen/oracle"
)

// totals are what a count adds up to over all rows, where it depends on nothing but the number of records.
var totals = map[string]struct {
	member string
	sum    float64
}{
	"wiki-tumbling":   {"edits", 39_199},
	"wiki-session":    {"edits", 39_199},
	"wiki-global":     {"edits", 39_199},
	"wiki-hopping":    {"edits", 6 * 39_199},
	"pickups-cells":   {"pickups", 393_210},
	"pickups-hopping": {"pickups", 4 * 65_535},
	"pickups-untyped": {"pickups", 65_535},
	"rides-global":    {"requests", 1500},
	"mixed-values":    {"n", 1200},
	"mixed-tumbling":  {"n", 600},
}

func TestCountsAddUpToTheRecords(t *testing.T) {
	for _, c := range All() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			if c.Large && testing.Short() {
				t.Skip("large")
			}
			ins, err := c.Inputs()
			if errors.Is(err, ErrNoData) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			rows, s, err := c.Expect()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%+v", s)
			records := recordsOf(t, ins)
			if c.Name == "wiki-poisoned" && records != 39_199 {
				t.Errorf("%d records left", records)
			}
			if c.Name == "wiki-two-sources" {
				records *= 2 // both sources read the topic
			}
			if s.Events != records {
				t.Errorf("%d events of %d records", s.Events, records)
			}
			if s.Filtered+s.Late+s.Implausible+s.Invalid >= s.Events {
				t.Errorf("nothing is left: %+v", s)
			}
			checkRows(t, rows, s.Rows, totals[c.Name].member, totals[c.Name].sum)
		})
	}
}

func recordsOf(t *testing.T, ins []Input) int64 {
	n := int64(0)
	for _, in := range ins {
		n += int64(len(in.Lines))
		for _, line := range in.Lines {
			if len(line) == 0 || bytes.ContainsAny(line, "\r\n") {
				t.Fatalf("%q can't be a record of a file and of a topic", line)
			}
		}
	}
	return n
}

// checkRows reads rows back; member, if any, adds up to want over all of them.
func checkRows(t *testing.T, rows []byte, n int64, member string, want float64) {
	total, printed := 0.0, int64(0)
	for line := range bytes.Lines(rows) {
		var row map[string]any
		if err := json.Unmarshal(line, &row); err != nil {
			t.Fatalf("a row is no JSON: %s: %v", line, err)
		}
		printed++
		if member != "" {
			total += row[member].(float64)
		}
	}
	if printed == 0 || printed != n {
		t.Errorf("%d rows counted, %d printed", n, printed)
	}
	if total != want {
		t.Errorf("%s over all rows is %v, want %v", member, total, want)
	}
}

func TestEveryFateIsMet(t *testing.T) {
	for name, met := range map[string]func(s oracle.Stats) bool{
		"rides-surge":             func(s oracle.Stats) bool { return s.Filtered > 0 && s.Late > 0 && s.Invalid == 0 },
		"rides-poisoned":          func(s oracle.Stats) bool { return min(s.Filtered, s.Late, s.Implausible, s.Invalid) > 9 },
		"rides-poisoned-sessions": func(s oracle.Stats) bool { return min(s.Late, s.Implausible, s.Invalid) > 9 },
		"wiki-poisoned":           func(s oracle.Stats) bool { return min(s.Late, s.Implausible, s.Invalid) > 99 },
		"fares-csv":               func(s oracle.Stats) bool { return min(s.Filtered, s.Invalid) > 9 },
	} {
		c, err := Named(name)
		if err != nil {
			t.Fatal(err)
		}
		_, s, err := c.Expect()
		if errors.Is(err, ErrNoData) {
			t.Logf("%s left out: %v", name, err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if !met(s) {
			t.Errorf("%s: %+v", name, s)
		}
	}
	c, err := Named("rides-surge")
	if err != nil {
		t.Fatal(err)
	}
	_, whole, err := c.Expect()
	if err != nil {
		t.Fatal(err)
	}
	if _, parts, err := Split(c, "a", "b").Expect(); err != nil || parts.Late == whole.Late {
		t.Errorf("split over two regions as many are late: %+v, %v", parts, err)
	}
	if _, err := Named("none"); err == nil {
		t.Error("a case that isn't there was found")
	}
}

// Worked out by hand from the steps in sessionEdges.
func TestSessionEdges(t *testing.T) {
	c, err := Named("rides-sessions-edges")
	if err != nil {
		t.Fatal(err)
	}
	rows, _, err := c.Expect()
	if err != nil {
		t.Fatal(err)
	}
	const row = `{"window_start":"2026-03-01T12:00:00Z","window_end":"2026-03-01T12:00:29.998Z",` +
		`"key":{"who":1},"steps":3,"total":12}`
	if !strings.Contains(string(rows), row+"\n") {
		t.Errorf("%s is not in\n%s", row, rows)
	}
	sessions := []int{3, 1, 3, 2, 3, 1, 2, 1, 1, 1} // by who
	for who, want := range sessions {
		key := `"key":{"who":` + string(rune('0'+who)) + `}`
		if got := strings.Count(string(rows), key); got != want {
			t.Errorf("%s has %d sessions, want %d", key, got, want)
		}
	}
}

func TestInputsAreTheSameEveryTime(t *testing.T) {
	for _, c := range rides() {
		first, err := c.Inputs()
		if err != nil {
			t.Fatal(err)
		}
		again, err := c.Inputs()
		if err != nil {
			t.Fatal(err)
		}
		same := func(a, b Input) bool { return slices.EqualFunc(a.Lines, b.Lines, bytes.Equal) }
		if !slices.EqualFunc(first, again, same) {
			t.Errorf("%s differs from call to call", c.Name)
		}
	}
}

func TestSplitKeepsEveryRecordInOrder(t *testing.T) {
	c, err := Named("rides-surge")
	if err != nil {
		t.Fatal(err)
	}
	whole, err := c.Inputs()
	if err != nil {
		t.Fatal(err)
	}
	parts, err := Split(c, "east", "west").Inputs()
	if err != nil {
		t.Fatal(err)
	}
	if len(parts) != 2*len(whole) {
		t.Fatalf("%d parts of %d partitions", len(parts), len(whole))
	}
	for i, in := range whole {
		east, west := parts[i], parts[len(whole)+i]
		if east.Region != "east" || west.Region != "west" || east.Topic != in.Topic || west.Partition != in.Partition {
			t.Fatalf("parts %s/%s/%d and %s/%s/%d of %s/%d", east.Region, east.Topic, east.Partition, west.Region,
				west.Topic, west.Partition, in.Topic, in.Partition)
		}
		if min(len(east.Lines), len(west.Lines)) < len(in.Lines)/3 {
			t.Errorf("%d and %d records are no split", len(east.Lines), len(west.Lines))
		}
		e, w := 0, 0
		for _, line := range in.Lines {
			switch {
			case e < len(east.Lines) && bytes.Equal(line, east.Lines[e]):
				e++
			case w < len(west.Lines) && bytes.Equal(line, west.Lines[w]):
				w++
			default:
				t.Fatalf("%s is missing or out of order", line)
			}
		}
		if e != len(east.Lines) || w != len(west.Lines) {
			t.Error("a record came twice")
		}
	}
}

func TestWriteFiles(t *testing.T) {
	for _, name := range []string{"fares-csv", "rides-surge"} {
		c, err := Named(name)
		if err != nil {
			t.Fatal(err)
		}
		c = Split(c, "east", "west")
		args, err := c.WriteFiles(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		ins, err := c.Inputs()
		if err != nil {
			t.Fatal(err)
		}
		if args[0] != "--job" || args[len(args)-2] != "--record-time" || args[len(args)-1] != "2026-03-01T12:30:00Z" {
			t.Errorf("args %q", args)
		}
		if job, err := os.ReadFile(args[1]); err != nil || !bytes.Equal(job, c.Job()) {
			t.Errorf("job file: %v", err)
		}
		for i, in := range ins {
			topic, path, _ := strings.Cut(args[3+2*i], "=")
			if args[2+2*i] != "--input" || topic != in.Region+"/"+in.Topic || !filepath.IsAbs(path) {
				t.Errorf("input %q %q", args[2+2*i], args[3+2*i])
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text = bytes.TrimPrefix(text, []byte("\ufeff"))
			lines := slices.DeleteFunc(bytes.Split(bytes.ReplaceAll(text, []byte("\r"), nil), []byte("\n")),
				func(l []byte) bool { return len(l) == 0 })
			if in.Header != nil {
				if !bytes.Equal(lines[0], in.Header) {
					t.Errorf("header %q", lines[0])
				}
				lines = lines[1:]
			}
			if !slices.EqualFunc(lines, in.Lines, bytes.Equal) {
				t.Errorf("%s holds other lines than the input", path)
			}
		}
	}
}

func TestDataDir(t *testing.T) {
	t.Setenv("WATERSHED_DATA", filepath.Join(t.TempDir(), "none"))
	if _, err := DataDir(); !errors.Is(err, ErrNoData) {
		t.Errorf("a folder that isn't there gave %v", err)
	}
	c, err := Named("wiki-tumbling")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Inputs(); !errors.Is(err, ErrNoData) {
		t.Errorf("input without data: %v", err)
	}
	dir := t.TempDir()
	t.Setenv("WATERSHED_DATA", dir)
	if _, err := c.Inputs(); !errors.Is(err, ErrNoData) {
		t.Errorf("input from an empty folder: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "wiki-edits.jsonl.gz"), []byte("no gzip"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Inputs(); err == nil || errors.Is(err, ErrNoData) {
		t.Errorf("a broken file gave %v", err)
	}
	if _, err := Split(c, "a").WriteFiles(dir); err == nil {
		t.Error("files of a broken input were written")
	}
}
