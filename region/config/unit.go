package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/watershed-db/watershed/crdt"
)

// Duration is a time.Duration written as Go writes it, such as 15ms or 1m30s.
type Duration time.Duration

// D returns d as a time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String returns d as Go writes it.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalYAML implements yaml.Marshaler.
func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

func (d *Duration) parse(s string) error {
	x, err := time.ParseDuration(s)
	if err == nil && x < 0 {
		err = fmt.Errorf("%q is negative", s)
	}
	*d = Duration(x)
	return err
}

func (*Duration) expects() string { return "a duration such as 15ms, 3s or 1m30s" }

// Size is a number of bytes, written with a unit: B, KiB, MiB or GiB.
type Size int64

var units = []struct {
	name string
	size Size
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// String returns s in the greatest unit that it is a whole number of.
func (s Size) String() string {
	for _, u := range units {
		if s%u.size == 0 && (s != 0 || u.size == 1) {
			return strconv.FormatInt(int64(s/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// MarshalYAML implements yaml.Marshaler.
func (s Size) MarshalYAML() (any, error) { return s.String(), nil }

func (s *Size) parse(text string) error {
	for _, u := range units {
		digits, ok := strings.CutSuffix(text, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		switch {
		case err != nil || n < 0:
			return fmt.Errorf("%q is no size", text)
		case n > 1<<50/int64(u.size):
			return fmt.Errorf("%q is more than a pebibyte", text)
		}
		*s = Size(n) * u.size
		return nil
	}
	return fmt.Errorf("%q has no unit", text)
}

// Set and Type make a Size a flag.
func (s *Size) Set(text string) error { return s.parse(text) }

// Type is what a flag's help calls it.
func (*Size) Type() string { return "size" }

func (*Size) expects() string { return "a size such as 512KiB, 256MiB or 1GiB" }

func sortIDs(ids []crdt.RegionID) { slices.Sort(ids) }
