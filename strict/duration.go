package strict

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxDuration bounds every duration in a file, in milliseconds: a hundred years of 365 days. It keeps sums of event times
// and durations far from the ends of int64.
const maxDuration = int64(36500 * 24 * time.Hour / time.Millisecond)

// ParseDuration reads Go's duration syntax, with whole days in front: 5s, 1h30m, 7d, 1d12h. The result is in
// milliseconds.
func ParseDuration(s string) (int64, error) {
	var days int64
	rest := s
	if before, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(before, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("%q is no whole number of days", Shorten(before))
		}
		days, rest = int64(n), after
		if rest == "" {
			rest = "0"
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration", Shorten(s))
	}
	ms := days*24*int64(time.Hour/time.Millisecond) + d.Milliseconds()
	switch {
	case d < 0:
		return 0, fmt.Errorf("%q is negative", s)
	case d%time.Millisecond != 0:
		return 0, fmt.Errorf("%q is no whole number of milliseconds", s)
	case ms > maxDuration:
		return 0, fmt.Errorf("%q is more than a hundred years", s)
	}
	return ms, nil
}

// FormatDuration writes milliseconds as ParseDuration reads them.
func FormatDuration(ms int64) string {
	const day = int64(24 * time.Hour / time.Millisecond)
	if ms > 0 && ms%day == 0 {
		return fmt.Sprintf("%dd", ms/day)
	}
	s := (time.Duration(ms) * time.Millisecond).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// Duration reads a scalar that is a duration of at least one least milliseconds.
func (r *Reader) Duration(n *yaml.Node, what string, least int64) (int64, bool) {
	const expected = "a duration such as 500ms, 30s, 1h30m or 7d"
	if n.Kind != yaml.ScalarNode || (n.ShortTag() != "!!str" && n.Value != "0") {
		r.Fail(n, expected, "%s is %s", what, KindOf(n))
		return 0, false
	}
	ms, err := ParseDuration(n.Value)
	if err != nil {
		r.Fail(n, expected, "%s: %v", what, err)
		return 0, false
	}
	if ms < least {
		r.Fail(n, "at least "+FormatDuration(least), "%s is %s", what, FormatDuration(ms))
		return 0, false
	}
	return ms, true
}
