package job

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxDuration bounds every duration of a job, in milliseconds: a hundred years of 365 days. It keeps sums of event times
// and durations far from the ends of int64.
const maxDuration = int64(36500 * 24 * time.Hour / time.Millisecond)

// parseDuration reads Go's duration syntax, with whole days in front: 5s, 1h30m, 7d, 1d12h. The result is in
// milliseconds.
func parseDuration(s string) (int64, error) {
	var days int64
	rest := s
	if before, after, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseUint(before, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("%q is no whole number of days", shorten(before))
		}
		days, rest = int64(n), after
		if rest == "" {
			rest = "0"
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration", shorten(s))
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

// formatDuration writes milliseconds as parseDuration reads them.
func formatDuration(ms int64) string {
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

// duration reads a scalar that is a duration of at least one least milliseconds.
func (r *reader) duration(n *yaml.Node, what string, least int64) (int64, bool) {
	const expected = "a duration such as 500ms, 30s, 1h30m or 7d"
	if n.Kind != yaml.ScalarNode || (n.ShortTag() != "!!str" && n.Value != "0") {
		r.fail(n, expected, "%s is %s", what, kindOf(n))
		return 0, false
	}
	ms, err := parseDuration(n.Value)
	if err != nil {
		r.fail(n, expected, "%s: %v", what, err)
		return 0, false
	}
	if ms < least {
		r.fail(n, "at least "+formatDuration(least), "%s is %s", what, formatDuration(ms))
		return 0, false
	}
	return ms, true
}
