package shard

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/processor/job"
)

var rewrite = flag.Bool("rewrite", false, "write what the scenarios print into their files")

// TestScenarios plays testdata/*.txt: lines of commands, a line of dashes, what they print. The language is that of
// scenario.run; lines that begin with # are comments.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 8 {
		t.Fatalf("scenarios: %d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { play(t, file) })
	}
}

func play(t *testing.T, file string) {
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sc := &scenario{t: t}
	defer sc.close()
	var out strings.Builder
	for i, block := range strings.Split(strings.TrimRight(string(content), "\n"), "\n\n") {
		commands, want, _ := strings.Cut(block+"\n", "----\n")
		got := sc.play(commands)
		if got != want && !*rewrite {
			t.Errorf("%s, block %d:\n%sprints:\n%swant:\n%s", file, i+1, commands, got, want)
		}
		if i > 0 {
			out.WriteByte('\n')
		}
		out.WriteString(commands + "----\n" + got)
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// scenario is one shard, driven by text.
type scenario struct {
	t     *testing.T
	m     *Machine
	fs    vfs.FS
	cfg   Config
	jobs  map[int]*job.Job
	index uint64
	at    uint64 // index of the last view taken
}

func (sc *scenario) close() {
	if sc.m != nil {
		closeMachine(sc.t, sc.m)
	}
}

func (sc *scenario) play(commands string) string {
	var out strings.Builder
	lines := bufio.NewScanner(strings.NewReader(commands))
	for lines.Scan() {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		out.WriteString(sc.run(line))
	}
	return out.String()
}

// args are the words of a line behind the command: plain ones in order, and name=value.
type args struct {
	t     *testing.T
	words []string
	named map[string]string
}

func (a *args) next() string {
	if len(a.words) == 0 {
		a.t.Fatal("a word is missing")
	}
	w := a.words[0]
	a.words = a.words[1:]
	return w
}

func (a *args) int(text string) int64 {
	switch text {
	case "-inf":
		return crdt.MinTime
	case "+inf":
		return crdt.MaxTime
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		a.t.Fatalf("number: %v", err)
	}
	return n
}

func (a *args) generation() crdt.GenerationID {
	return GenerationOf(1, uint64(a.int(strings.TrimPrefix(a.next(), "g"))))
}

func (a *args) regions(text string) (list []crdt.RegionID) {
	for _, x := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		list = append(list, crdt.RegionID(x))
	}
	return list
}

// position reads "offset[history]@watermark".
func (a *args) position(s crdt.Source, text string) crdt.Point {
	at, wm, _ := strings.Cut(text, "@")
	offset := strings.TrimRight(at, "xy")
	if offset == "" {
		offset = "0"
	}
	if wm == "" {
		wm = "-inf"
	}
	w := a.int(wm)
	p := pointOf(s, strings.TrimLeft(at, "0123456789"), a.int(offset), w)
	if w == crdt.MaxTime {
		p = p.End()
	}
	return p
}

func (a *args) source(group, text string) crdt.Source { return sourceOf(group, int32(a.int(text))) }

// deltas reads "time/key[/class]:records".
func (a *args) deltas(j *job.Job, text string) (list []crdt.Delta) {
	for _, d := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' }) {
		slot, n, _ := strings.Cut(d, ":")
		parts := append(strings.Split(slot, "/"), "0")
		times := []int64{}
		for range a.int(n) {
			times = append(times, a.int(parts[0]))
		}
		if ev, ok := a.named["events"]; ok { // event times of a session's cell
			times = nil
			for _, e := range strings.Split(ev, ",") {
				times = append(times, a.int(e))
			}
		}
		list = append(list, crdt.Delta{Slot: crdt.Slot{Time: a.int(parts[0]), Key: keyOf(parts[1]), Class: uint16(a.int(parts[2]))},
			Cell: cellOf(a.t, j, times...)})
	}
	return sortedDeltas(list)
}

// run plays one line:
//
//	shard [self=a] [regions=a,b] [owner=false]       a fresh shard
//	restart                                          close it and open it from its store
//	state | rows G [key=K] | floor G | out N | stood G group partition:position | registry | ownership | owned | values | value type key
//	job G window=... lateness=.. retention=.. sink max_session=..
//	and one line for each command, see run
func (sc *scenario) run(line string) string {
	a := &args{t: sc.t, named: map[string]string{}}
	words := strings.Fields(line)
	for _, w := range words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			a.named[k] = v
		} else {
			a.words = append(a.words, w)
		}
	}
	switch words[0] {
	case "shard":
		return sc.shard(a)
	case "restart":
		closeMachine(sc.t, sc.m)
		sc.m = openMachine(sc.t, sc.cfg, sc.fs)
		return ""
	case "state", "rows", "floor", "out", "stood", "registry", "tables", "view", "ownership", "owned", "values", "value":
		return sc.read(words[0], a)
	}
	c := sc.command(words[0], a)
	if c == nil {
		sc.t.Fatalf("unknown line %q", line)
	}
	return sc.apply(words[0], c)
}

func (sc *scenario) shard(a *args) string {
	sc.close()
	sc.cfg = twoRegions()
	if x := a.named["regions"]; x != "" {
		sc.cfg.Regions = a.regions(x)
	}
	if x := a.named["self"]; x != "" {
		sc.cfg.Self = crdt.RegionID(x)
	}
	sc.cfg.Owner = a.named["owner"] != "false"
	sc.fs, sc.index, sc.jobs = vfs.NewMem(), 0, map[int]*job.Job{}
	sc.m = openMachine(sc.t, sc.cfg, sc.fs)
	return ""
}

func (sc *scenario) apply(verb string, c Command) string {
	raw := Encode(c)
	again, err := Decode(raw)
	if err != nil || !bytes.Equal(Encode(again), raw) {
		sc.t.Fatalf("%s does not come back from its encoding: %v", verb, err)
	}
	if err := sc.m.Validate(c); err != nil {
		return fmt.Sprintf("%s: %v\n", verb, err)
	}
	sc.index++
	res := sc.m.Apply(sc.index, raw).(Result)
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s: %s", res.Index, verb, res.Outcome)
	if res.Reason != "" {
		fmt.Fprintf(&b, " (%s)", res.Reason)
	}
	for _, sp := range res.Points {
		fmt.Fprintf(&b, " %v at %d%s", sp.Source, sp.Point.Offset, historyOf(sp.Source, sp.Point))
	}
	for _, s := range res.Sources {
		fmt.Fprintf(&b, " %v", s)
	}
	if res.Copy > 0 {
		fmt.Fprintf(&b, " copy %d", res.Copy)
	}
	if res.Refusal != 0 {
		fmt.Fprintf(&b, " refusal %s", res.Refusal)
	}
	if res.Generation != (crdt.GenerationID{}) {
		fmt.Fprintf(&b, " generation %x", res.Generation)
	}
	b.WriteString(answers(sc.t, res.Entries) + "\n")
	return b.String()
}

func (sc *scenario) read(verb string, a *args) (text string) {
	s, err := sc.m.Snapshot()
	if err != nil {
		sc.t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(err, s.Close()); err != nil {
			sc.t.Fatal(err)
		}
	}()
	var b strings.Builder
	switch verb {
	case "state":
		return dump(sc.t, s)
	case "view":
		sc.at = s.Index
	case "floor":
		var h int64
		h, err = s.Floor(s.Generation(a.generation()))
		return fmt.Sprintf("floor %s\n", timeText(h))
	case "rows":
		g := s.Generation(a.generation())
		each := func(r *job.Row) error {
			fmt.Fprintf(&b, "[%s, %s) %s = %d complete %v\n", timeText(r.Start), timeText(r.End), keyName(r.Key), r.Revision, r.Complete)
			return nil
		}
		if k, ok := a.named["key"]; ok {
			err = s.RowsOf(g, keyOf(k), job.Everything(), each)
		} else {
			err = s.Rows(g, job.Everything(), each)
		}
	case "out":
		list, complete, e := s.OutAfter(uint64(a.int(a.next())), 100)
		err = e
		for _, o := range list {
			fmt.Fprintf(&b, "%d %s\n", o.Index, [...]string{"", "advance", "sources", "horizon", "install", "table"}[o.Kind])
			if o.Kind == OutTable {
				fmt.Fprintf(&b, "  entry %d of member %d\n", o.Mark.Position, o.Actor)
			}
		}
		if !complete {
			b.WriteString("too far back\n")
		}
	case "stood":
		g, group := s.Generation(a.generation()), a.next()
		for _, w := range a.words {
			p, at, _ := strings.Cut(w, ":")
			src := a.source(group, p)
			ok, e := s.Stood(g, SourceMark{src, a.position(src, at).Mark()})
			err = errors.Join(err, e)
			fmt.Fprintf(&b, "%s %v\n", w, ok)
		}
	case "tables":
		fmt.Fprintf(&b, "told at %s\n", s.Told().At())
		for _, t := range s.Told().Live() {
			fmt.Fprintf(&b, "%s %s %s\n", t.ID, t.Def.Name, t.Def.Type)
		}
	case "registry":
		return dumpRegistry(s.Registry())
	case "owned":
		text, err = dumpOwned(s)
		return text
	case "ownership":
		text, err = dumpOwnership(s)
		return text
	case "values":
		return dumpTables(s.Tables())
	case "value": // value type key
		of := a.tableType()
		v, e := s.TableValue(simTable(int(of)), of, keyOf(a.next()))
		err = e
		if e == nil {
			fmt.Fprintln(&b, readTable(v))
		}
	}
	return b.String()
}

func dumpRegistry(r *Registry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "position %d\n", r.Position())
	for _, e := range r.Jobs() {
		fmt.Fprintf(&b, "%s generation %x of %d bytes at %d\n", e.Name, e.Generation, len(e.File), e.Position)
		for _, sp := range r.Decided(e.Generation) {
			fmt.Fprintf(&b, "  %v from %d in %s\n", sp.Source, sp.Point.Offset, sp.TopicID)
		}
		for _, x := range r.Stopped(e.Generation) {
			fmt.Fprintf(&b, "  %v stopped: %s\n", x.Source, x.Reason)
		}
	}
	for _, e := range r.Tables() {
		fmt.Fprintf(&b, "table %s %s %s of %d bytes\n", e.Name, e.TableID(), e.Table.Type, len(e.File))
	}
	return b.String()
}

// jobOf reads a job's options.
func (sc *scenario) jobOf(a *args) []byte {
	window := strings.NewReplacer("(", "{", ")", "}", ";", ", ", ":", ": ").Replace(a.named["window"])
	var options []string
	for _, o := range []string{"allowed_lateness", "retention", "max_session"} {
		if v := a.named[o]; v != "" {
			options = append(options, o+": "+v)
		}
	}
	if slices.Contains(a.words, "sink") {
		options = append(options, withSink)
	}
	return jobFile(window, options...)
}
