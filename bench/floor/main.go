// Command floor is the hand-written loop that `watershed run` is measured against: it walks over the fields of every
// line once, checks nothing, and counts and sums in a map. It knows the generated rides and the wiki edits by the names
// of their fields, and prints how many rows there would be.
package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

type cell struct {
	n   int64
	sum float64
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: floor FILE")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

func run(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var src io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if src, err = gzip.NewReader(f); err != nil {
			return err
		}
	}
	r := bufio.NewReaderSize(src, 1<<20)
	cells := make(map[string]*cell)
	var key []byte
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		ms, group, value := fields(line)
		key = strconv.AppendInt(append(append(key[:0], group...), '/'), ms/60_000, 10)
		c := cells[string(key)]
		if c == nil {
			c = new(cell)
			cells[string(key)] = c
		}
		c.n++
		c.sum += value
	}
	fmt.Println(len(cells))
	return nil
}

// fields walks over the members of a flat object and returns the three that count.
func fields(b []byte) (ms int64, group []byte, value float64) {
	for i := 1; i < len(b) && b[i] == '"'; {
		name, v := b[i+1:], []byte(nil)
		name = name[:bytes.IndexByte(name, '"')]
		i += len(name) + 3
		if b[i] == '"' {
			end := i + 1
			for b[end] != '"' {
				if b[end] == '\\' {
					end++
				}
				end++
			}
			v = b[i+1 : end]
			i = end + 2
		} else {
			end := i
			for b[end] != ',' && b[end] != '}' {
				end++
			}
			v = b[i:end]
			i = end + 1
		}
		switch string(name) {
		case "ts":
			ms, _ = strconv.ParseInt(string(v), 10, 64)
		case "time":
			t, _ := time.Parse(time.RFC3339, string(v))
			ms = t.UnixMilli()
		case "city", "channel":
			group = v
		case "fare", "added":
			value, _ = strconv.ParseFloat(string(v), 64)
		}
	}
	return ms, group, value
}
