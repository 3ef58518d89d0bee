package shard

import (
	"errors"
	"fmt"
)

// A shard's log and store are of a format, a number that rises with what may stand in them: a new kind of command, a new
// body of an old one, a new stored record. A build knows all formats up to Format, and writes nothing above the one in
// force, which is part of the shard's state (State.Format) and rises by a Raise only. So nodes of two builds work side by
// side, and the newer one can be taken back until the region is told to raise its format; rules A11 has the same for
// what jobs pin.

// ErrNewer marks what a newer build has written: the message says both formats. It is never guessed at.
var ErrNewer = errors.New("written by a newer version of watershed")

func newer(what string, has uint64) error {
	return fmt.Errorf("%w: %s has format %d, this build knows formats up to %d", ErrNewer, what, has, Format)
}

// Raise puts a format in force: from here on the log and the store may hold what only builds that know it can read. That
// every node of the region does is the proposer's care; a replica that doesn't stops. Lower ones change nothing.
type Raise struct{ Format uint32 }

func (*Raise) kind() Kind { return KindRaise }

func (c *Raise) appendBody(b []byte) []byte { return appendUvarint(b, uint64(c.Format)) }

func (c *Raise) readBody(r *reader) { c.Format = r.uint32() }

// check refuses a format that this build doesn't know.
func (c *Raise) check() error {
	if c.Format > Format {
		return newer("the shard that is raised", uint64(c.Format))
	}
	return nil
}

func (a *applier) raiseFormat(c *Raise) {
	if c.Format <= a.st.Format {
		a.end(Duplicate, "")
		return
	}
	a.st.Format = c.Format
	a.w.set(formatKey(), appendUvarint([]byte{metaVersion}, uint64(c.Format)))
	a.end(Applied, "")
}

// readFormat reads the record of the format in force; without one that is 1.
func readFormat(record []byte, known bool) (uint32, error) {
	if !known {
		return 1, nil
	}
	r := reader{b: record}
	r.version()
	format := r.uint32()
	if err := r.done(); err != nil {
		return 0, fmt.Errorf("%w: format in force: %w", ErrState, err)
	}
	if format > Format {
		return 0, fmt.Errorf("%w: %w", ErrState, newer("the shard", uint64(format)))
	}
	return format, nil
}

// Formats returns the versions of what this package writes into logs and stores, by name.
func Formats() map[string]int {
	return map[string]int{"shard": Format, "shard record": metaVersion}
}
