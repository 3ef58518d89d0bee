package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
)

const (
	// firstEvent is the time of the first generated event, in ms: 2026-01-01T00:00:00Z.
	firstEvent = 1_767_225_600_000
	// disorder is how far behind its place an event's time may lie, in ms; the jobs' bound is 5 s.
	disorder = 2_000
)

// rides generates ride-like events of about 200 bytes and 12 fields: a function of its seed. Event n is n ms after the
// first, less some disorder; its key is one of keys cells, all equally likely, which is the hardest on caches.
type rides struct {
	rng  *rand.Rand
	keys int
	n    int64 // events made so far
	ts   int64 // event time of the last one
	csv  bool
	pad  int // bytes of a further field, note, that don't compress; not in CSV
}

func newRides(seed uint64, keys int, csv bool) *rides {
	return &rides{rng: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), keys: keys, csv: csv}
}

// header is the first line of a CSV file of rides.
const header = "ts,ride_id,rider,driver,cell,city,lat,lon,distance_m,fare,surge,status\n"

var (
	cities   = [...]string{"new-york", "chicago", "berlin", "lagos", "osaka", "lima"}
	statuses = [...]string{"completed", "cancelled", "requested", "under-way"}
)

const noteLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// cell returns the name of a key.
func cell(to []byte, key int) []byte { return padded(append(to, "cell-"...), int64(key), 6) }

// at returns the event time of event n without its disorder.
func (g *rides) at(n int64) int64 { return firstEvent + n }

// append appends the next event and its newline, at event time ts less some disorder.
func (g *rides) append(to []byte, ts int64) []byte {
	r := g.rng
	ts -= r.Int64N(disorder)
	g.ts = ts
	g.n++
	key := r.IntN(g.keys)
	field := func(name string, quoted bool) {
		switch {
		case g.csv && name == "ts":
		case g.csv:
			to = append(to, ',')
		case name == "ts":
			to = append(to, `{"ts":`...)
		default:
			to = append(append(append(to, `,"`...), name...), `":`...)
		}
		if quoted && !g.csv {
			to = append(to, '"')
		}
	}
	text := func() {
		if !g.csv {
			to = append(to, '"')
		}
	}
	field("ts", false)
	to = strconv.AppendInt(to, ts, 10)
	field("ride_id", true)
	to = padded(append(to, "r-"...), g.n, 10)
	text()
	field("rider", true)
	to = padded(append(to, "u-"...), r.Int64N(1_000_000), 6)
	text()
	field("driver", true)
	to = padded(append(to, "d-"...), r.Int64N(100_000), 5)
	text()
	field("cell", true)
	to = cell(to, key)
	text()
	field("city", true)
	to = append(to, cities[key%len(cities)]...)
	text()
	field("lat", false)
	to = decimal(to, 40_000_000+r.Int64N(999_999), 6)
	field("lon", false)
	to = decimal(append(to, '-'), 73_000_000+r.Int64N(999_999), 6)
	field("distance_m", false)
	to = strconv.AppendInt(to, 300+r.Int64N(20_000), 10)
	field("fare", false)
	to = decimal(to, 250+r.Int64N(9_000), 2)
	field("surge", false)
	to = decimal(to, 100+r.Int64N(150), 2)
	field("status", true)
	to = append(to, statuses[r.IntN(len(statuses))]...)
	text()
	if g.pad > 0 {
		field("note", true)
		for range g.pad {
			to = append(to, noteLetters[r.Uint32()%64])
		}
		text()
	}
	if !g.csv {
		to = append(to, '}')
	}
	return append(to, '\n')
}

// padded appends v with leading zeros.
func padded(to []byte, v int64, width int) []byte {
	var digits [20]byte
	for i := width - 1; i >= 0; i-- {
		digits[i] = byte('0' + v%10)
		v /= 10
	}
	return append(to, digits[:width]...)
}

// decimal appends v / 10^places.
func decimal(to []byte, v int64, places int) []byte {
	scale := int64(1)
	for range places {
		scale *= 10
	}
	to = append(strconv.AppendInt(to, v/scale, 10), '.')
	return padded(to, v%scale, places)
}

// generate writes a file of events.
func generate(ctx context.Context, args []string) error {
	f := flags("gen")
	events := f.Int64("events", 5_000_000, "number of events")
	keys := f.Int("keys", 10_000, "number of keys")
	seed := f.Uint64("seed", 1, "the same seed makes the same bytes")
	format := f.String("format", "jsonl", "jsonl or csv")
	out := f.String("out", "-", "the file; - is standard output")
	_ = f.Parse(args) // exits by itself
	if *format != "jsonl" && *format != "csv" || *keys < 1 {
		return fmt.Errorf("format %q, %d keys: want jsonl or csv, and a key at least", *format, *keys)
	}
	file := os.Stdout
	if *out != "-" {
		var err error
		if file, err = os.Create(*out); err != nil {
			return err
		}
	}
	if err := writeRides(ctx, file, newRides(*seed, *keys, *format == "csv"), *events); err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	return file.Close()
}

func writeRides(ctx context.Context, to io.Writer, g *rides, events int64) error {
	w := bufio.NewWriterSize(to, 1<<20)
	if g.csv {
		_, _ = w.WriteString(header) // the writer keeps its error
	}
	var line []byte
	for g.n < events {
		line = g.append(line[:0], g.at(g.n))
		if _, err := w.Write(line); err != nil {
			return err
		}
		if g.n%65536 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return w.Flush()
}
