package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// layout is what the floor knows about a file by heart: which three fields are wanted.
type layout struct {
	csv              bool
	time, key, value string
	columns          [3]int // of a CSV file, in rising order
	rfc3339          bool
}

var layouts = map[string]layout{
	"wiki":      {time: "time", key: "channel", value: "added", rfc3339: true},
	"rides":     {time: "ts", key: "cell", value: "fare"},
	"rides-csv": {csv: true, columns: [3]int{0, 4, 9}},
}

// tally is what the floor counts of one window and key.
type tally struct {
	count uint64
	sum   float64
}

// group is one window and key.
type group struct {
	window int64
	key    string
}

// floor is the least that could be called the same work as a run: it finds the three wanted fields of every record in
// one pass, reads the time and the number, and counts. It validates nothing, judges nothing, sums floats as they come.
type floor struct {
	layout
	records, bad uint64
	check        int64 // sums up what was scanned, so that nothing is left out
	sum          float64
	groups       map[group]*tally // nil: only count
}

// window is the jobs' window, in ms.
const window = 300_000

// scan is the floor as a process of its own. It prints what it counted as JSON.
func scan(_ context.Context, args []string) error {
	f := flags("scan")
	name := f.String("layout", "rides", "wiki, rides or rides-csv")
	grouped := f.Bool("group", false, "also group by window and key in a Go map, with count and sum")
	_ = f.Parse(args) // exits by itself
	l, ok := layouts[*name]
	if !ok || f.NArg() == 0 {
		return fmt.Errorf("layout %q over %q: want a known layout and files", *name, f.Args())
	}
	s := &floor{layout: l}
	if *grouped {
		s.groups = make(map[group]*tally)
	}
	for _, path := range f.Args() {
		if err := s.file(path); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"records": s.records, "bad": s.bad, "groups": len(s.groups),
		"check": s.check, "sum": s.sum})
}

func (s *floor) file(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var src io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if src, err = gzip.NewReader(bufio.NewReaderSize(f, 256<<10)); err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
	}
	buf := make([]byte, 1<<20)
	have, first := 0, s.csv
	for {
		n, err := io.ReadFull(src, buf[have:])
		rest := buf[:have+n]
		for {
			i := bytes.IndexByte(rest, '\n')
			if i < 0 {
				break
			}
			if first {
				first = false
			} else {
				s.line(rest[:i])
			}
			rest = rest[i+1:]
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return fmt.Errorf("read %s: %w", path, err)
		}
		if have = copy(buf, rest); have == len(buf) {
			return fmt.Errorf("read %s: a line of more than %d bytes", path, len(buf))
		}
	}
}

func (s *floor) line(line []byte) {
	var time, key, value []byte
	if s.csv {
		time, key, value = s.columnsOf(line)
	} else {
		time, key, value = s.members(line)
	}
	if time == nil || key == nil || value == nil {
		s.bad++
		return
	}
	ms := int64(0)
	if s.rfc3339 {
		ms = daySeconds(time) * 1000
	} else {
		for _, c := range time {
			ms = ms*10 + int64(c-'0')
		}
	}
	v := number(value)
	s.records++
	s.check += ms + int64(len(key))
	s.sum += v
	if s.groups == nil {
		return
	}
	w := ms - ms%window
	t := s.groups[group{w, string(key)}]
	if t == nil {
		t = new(tally)
		s.groups[group{w, string(key)}] = t
	}
	t.count++
	t.sum += v
}

// members walks over a flat object's members until it has the wanted ones.
func (s *floor) members(b []byte) (time, key, value []byte) {
	found := 0
	for i := 1; i < len(b) && b[i] == '"'; {
		n := bytes.IndexByte(b[i+1:], '"')
		name := b[i+1 : i+1+n]
		i += n + 3 // behind the colon
		var v []byte
		if b[i] == '"' {
			start := i + 1
			for i = start; b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			v = b[start:i]
			i++
		} else {
			start := i
			for b[i] != ',' && b[i] != '}' {
				i++
			}
			v = b[start:i]
		}
		switch string(name) {
		case s.time:
			time = v
			found++
		case s.key:
			key = v
			found++
		case s.value:
			value = v
			found++
		}
		if found == 3 {
			return time, key, value
		}
		i++ // the comma
	}
	return time, key, value
}

// columnsOf splits a line without quotes at its commas.
func (s *floor) columnsOf(b []byte) (time, key, value []byte) {
	var cells [3][]byte
	found := 0
	for column := 0; found < 3; column++ {
		n := bytes.IndexByte(b, ',')
		if n < 0 {
			break
		}
		if column == s.columns[found] {
			cells[found] = b[:n]
			found++
		}
		b = b[n+1:]
	}
	return cells[0], cells[1], cells[2]
}

// daySeconds returns the second of the day of a time such as 2015-09-12T00:46:58.771Z: the file is of one day.
func daySeconds(t []byte) int64 {
	two := func(i int) int64 { return int64(t[i]-'0')*10 + int64(t[i+1]-'0') }
	return two(11)*3600 + two(14)*60 + two(17)
}

var tenths = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6}

// number reads digits with at most six behind a point.
func number(b []byte) float64 {
	var m int64
	places, point := 0, false
	for _, c := range b {
		switch {
		case c == '.':
			point = true
		case c != '-':
			m = m*10 + int64(c-'0')
			if point {
				places++
			}
		}
	}
	f := float64(m) / tenths[places]
	if len(b) > 0 && b[0] == '-' {
		f = -f
	}
	return f
}
