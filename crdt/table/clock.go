package table

import (
	"cmp"
	"fmt"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// Time is a hybrid logical time: milliseconds, then a counter of 16 bits. The zero Time is none.
type Time uint64

// TimeAt returns the least Time of a millisecond from 0 to 2^48-1.
func TimeAt(millis int64) Time { return Time(millis) << 16 }

// Millis returns the millisecond of t.
func (t Time) Millis() int64 { return int64(t >> 16) }

// String returns milliseconds.counter for messages.
func (t Time) String() string { return fmt.Sprintf("%d.%d", t.Millis(), uint16(t)) }

// Clock is a hybrid logical clock: it never falls behind a Time that it has seen, and never lets itself be pulled further
// ahead of the clock it is given than MaxAhead. It is not safe for concurrent use.
type Clock struct {
	MaxAhead int64 // in ms
	last     Time
}

// Next returns a Time above every one returned or observed before. It fails with ErrAhead, and the clock stays, where
// that would lie too far ahead of now, in ms: now has stepped back.
func (c *Clock) Next(now int64) (Time, error) {
	t := max(c.last+1, TimeAt(now))
	if err := checkAhead(t.Millis(), now, c.MaxAhead); err != nil {
		return 0, err
	}
	c.last = t
	return t, nil
}

// Observe has the clock stand at t or later. It fails with ErrAhead, and the clock stays, where t lies too far ahead of
// now, in ms.
func (c *Clock) Observe(t Time, now int64) error {
	if err := checkAhead(t.Millis(), now, c.MaxAhead); err != nil {
		return err
	}
	c.last = max(c.last, t)
	return nil
}

func checkAhead(millis, now, maxAhead int64) error {
	if millis > maxMillis || millis-now > maxAhead && !mutant.On("far-stamp-taken") {
		return fmt.Errorf("%w: %d ms by this clock, %d are allowed", ErrAhead, millis-now, maxAhead)
	}
	return nil
}

// Stamp orders the writes that replace one another: by time, then by operation, so that no two operations have one stamp.
// It is comparable; the zero Stamp is below all others.
type Stamp struct {
	Time Time
	ID   ID
}

// Compare orders stamps.
func (a Stamp) Compare(b Stamp) int {
	if c := cmp.Compare(a.Time, b.Time); c != 0 {
		return c
	}
	return a.ID.Compare(b.ID)
}
