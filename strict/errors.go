package strict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// MaxErrors bounds how many errors of a file are reported at once.
const MaxErrors = 20

// Error is one thing wrong with a file.
type Error struct {
	File   string
	Line   int // from 1
	Column int // from 1, in characters
	What   string
	// Expected says what would be right, empty where What says it.
	Expected string
}

// Error returns file:line:column: what; expected ...
func (e Error) Error() string {
	s := fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.What)
	if e.Expected != "" {
		s += "; expected " + e.Expected
	}
	return s
}

// ErrorList is everything wrong with a file, in the order of the file, at most MaxErrors. It is never empty where it
// is returned.
type ErrorList []Error

// Error returns the errors, one a line.
func (l ErrorList) Error() string {
	lines := make([]string, len(l))
	for i, e := range l {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Sorted returns l in the order of the file, without repetitions, cut to MaxErrors.
func (l ErrorList) Sorted() ErrorList {
	slices.SortStableFunc(l, func(a, b Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	l = slices.Compact(l)
	if more := len(l) - MaxErrors; more > 0 {
		l = l[:MaxErrors]
		l[MaxErrors-1].What += fmt.Sprintf(" (and %d more errors)", more)
	}
	return l
}

// nearest returns the name among known that looks most like name, or "" where none does.
func nearest(name string, known []string) string {
	best, at := "", 3
	for _, k := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(k)); d < at && d < max(len(k), 2) {
			best, at = k, d
		}
	}
	return best
}

// distance is the number of insertions, deletions, changes and swaps of neighbours between a and b; 3 or more is told as
// some number of at least 3.
func distance(a, b string) int {
	if d := len(a) - len(b); d > 2 || d < -2 || len(a) > 64 || len(b) > 64 {
		return 3
	}
	before, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			change := prev[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, prev, cur = prev, cur, before
	}
	return prev[len(b)]
}

// DidYouMean returns " (did you mean x?)" or "".
func DidYouMean(name string, known []string) string {
	if k := nearest(name, known); k != "" {
		return fmt.Sprintf(" (did you mean %q?)", k)
	}
	return ""
}
