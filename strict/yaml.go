package strict

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Reader walks the nodes of one file and gathers what is wrong with it. It is used by one goroutine.
type Reader struct {
	File  string   // its name, which stands in front of every message
	Lines [][]rune // of the file, set by Document
	Errs  ErrorList
}

// Pair is a member of a mapping. The zero Pair stands for a member that is not there.
type Pair struct {
	Key, Value *yaml.Node
}

// Given reports whether the member is there.
func (p Pair) Given() bool { return p.Value != nil }

// Fail reports something wrong at a node, and what would be right there, "" where the message says it.
func (r *Reader) Fail(n *yaml.Node, expected, format string, args ...any) {
	r.FailAt(n.Line, n.Column, expected, format, args...)
}

// FailAt is Fail for a place, counted from 1.
func (r *Reader) FailAt(line, column int, expected, format string, args ...any) {
	r.Errs = append(r.Errs, Error{r.File, max(line, 1), max(column, 1), fmt.Sprintf(format, args...), expected})
}

// Document parses src, which must be one YAML document about one thing, such as a job, that has the members expected. It
// returns nil when it has reported an error.
func (r *Reader) Document(src []byte, thing, expected string) (root *yaml.Node) {
	if !utf8.Valid(src) {
		at := bytes.IndexFunc(src, func(c rune) bool { return c == utf8.RuneError })
		r.FailAt(1+bytes.Count(src[:at], []byte("\n")), 1, "", "the file is not UTF-8")
		return nil
	}
	for _, line := range strings.Split(string(src), "\n") {
		r.Lines = append(r.Lines, []rune(line))
	}
	// The parser is not ours and the bytes come from outside: a bug of its own must not take the process down.
	defer func() {
		if p := recover(); p != nil {
			r.FailAt(1, 1, "", "the file cannot be read as YAML: %v", p)
			root = nil
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(src))
	var doc, next yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		r.FailAt(1, 1, expected, "the file is empty")
		return nil
	} else if err != nil {
		r.syntax(err)
		return nil
	}
	if err := dec.Decode(&next); err == nil {
		r.Fail(&next, "one "+thing+" in a file", "a second YAML document")
		return nil
	} else if !errors.Is(err, io.EOF) {
		r.syntax(err)
		return nil
	}
	return doc.Content[0]
}

// syntax reports an error of the YAML parser, which knows the line alone: the line before where its grammar does not
// fit, and none where an alias names no anchor.
func (r *Reader) syntax(err error) {
	what := strings.TrimPrefix(err.Error(), "yaml: ")
	line, column := 1, 0
	if rest, ok := strings.CutPrefix(what, "line "); ok {
		if n, msg, ok := strings.Cut(rest, ": "); ok {
			if i, err := strconv.Atoi(n); err == nil {
				line, what = i, msg
			}
		}
	}
	if strings.HasPrefix(what, "did not find expected") {
		line++
	}
	find := ""
	if strings.HasPrefix(what, "found a tab character") {
		find = "\t"
	} else if name, ok := strings.CutPrefix(what, "unknown anchor '"); ok {
		name, _, _ = strings.Cut(name, "'")
		find = "*" + name
	}
	for i := line - 1; find != "" && i >= 0 && i < len(r.Lines); i++ {
		if before, _, ok := strings.Cut(string(r.Lines[i]), find); ok {
			line, column = i+1, utf8.RuneCountInString(before)+1
			break
		}
	}
	line = min(max(line, 1), len(r.Lines))
	if column == 0 {
		for column = 1; column <= len(r.Lines[line-1]) && unicode.IsSpace(r.Lines[line-1][column-1]); {
			column++
		}
	}
	r.FailAt(line, column, "YAML", "%s", what)
}

// KindOf names what a node holds, for messages.
func KindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!timestamp":
		return "a timestamp"
	case "!!str":
		return fmt.Sprintf("the text %q", Shorten(n.Value))
	}
	return "a " + n.ShortTag()
}

// Shorten returns s, cut to 60 characters.
func Shorten(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}

// Pairs returns the members of a mapping in order; it reports duplicates, and keys that are no plain text.
func (r *Reader) Pairs(n *yaml.Node, what, expected string) []Pair {
	if n.Kind != yaml.MappingNode {
		r.Fail(n, expected, "%s is %s", what, KindOf(n))
		return nil
	}
	out := make([]Pair, 0, len(n.Content)/2)
	seen := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!null" || k.ShortTag() == "!!merge" {
			r.Fail(k, "a name", "a member of %s is named by %s", what, KindOf(k))
			continue
		}
		if first, dup := seen[k.Value]; dup {
			r.Fail(k, "each name once", "duplicate %q in %s, first at line %d", k.Value, what, first.Line)
			continue
		}
		seen[k.Value] = k
		out = append(out, Pair{k, v})
	}
	return out
}

// Fields returns the members of a mapping by name, reporting those that are not among known.
func (r *Reader) Fields(n *yaml.Node, what string, known ...string) map[string]Pair {
	list := strings.Join(known, ", ")
	out := make(map[string]Pair)
	for _, p := range r.Pairs(n, what, "a mapping with "+list) {
		ok := false
		for _, k := range known {
			ok = ok || k == p.Key.Value
		}
		if !ok {
			r.Fail(p.Key, "one of "+list, "unknown field %q in %s%s", p.Key.Value, what, DidYouMean(p.Key.Value, known))
			continue
		}
		out[p.Key.Value] = p
	}
	return out
}

// Need returns the named member, reporting its absence at parent.
func (r *Reader) Need(parent *yaml.Node, m map[string]Pair, what, name, expected string) (*yaml.Node, bool) {
	p := m[name]
	if !p.Given() && parent.Kind == yaml.MappingNode {
		r.Fail(parent, expected, "%s lacks %q", what, name)
	}
	return p.Value, p.Given()
}

// Items returns the elements of a list.
func (r *Reader) Items(n *yaml.Node, what, expected string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		r.Fail(n, expected, "%s is %s", what, KindOf(n))
		return nil
	}
	return n.Content
}

// Text returns a scalar that is a text.
func (r *Reader) Text(n *yaml.Node, what, expected string) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		hint := ""
		if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" {
			hint = fmt.Sprintf(" (quote it where a text is meant: %q)", Shorten(n.Value))
		}
		r.Fail(n, expected, "%s is %s%s", what, KindOf(n), hint)
		return "", false
	}
	return n.Value, true
}

// Choice returns a scalar that is one of the allowed texts.
func (r *Reader) Choice(n *yaml.Node, what string, allowed ...string) (string, bool) {
	expected := strings.Join(allowed, " | ")
	s, ok := r.Text(n, what, expected)
	if !ok {
		return "", false
	}
	for _, a := range allowed {
		if a == s {
			return s, true
		}
	}
	r.Fail(n, expected, "%s is %q%s", what, Shorten(s), DidYouMean(s, allowed))
	return "", false
}

// Later reports something that the format knows and this version does not do.
func (r *Reader) Later(n *yaml.Node, what, expected string) {
	r.Fail(n, expected, "%s is not supported yet", what)
}

// Place returns where in the file the character at offset (in runes) of a scalar's value stands. White space may be
// folded and quotes escaped between the two, so it counts the other characters.
func (r *Reader) Place(n *yaml.Node, offset int) (line, column int) {
	target := 0
	for i, c := range []rune(n.Value) {
		if i >= offset {
			break
		}
		if !unicode.IsSpace(c) {
			target++
		}
	}
	line, column = n.Line, n.Column
	switch {
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		line, column = line+1, 1
	case n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		column++
	}
	last := [2]int{n.Line, n.Column}
	for seen := 0; line <= len(r.Lines); line, column = line+1, 1 {
		for row := r.Lines[line-1]; column <= len(row); column++ {
			if unicode.IsSpace(row[column-1]) {
				continue
			}
			last = [2]int{line, column}
			if seen == target {
				return line, column
			}
			seen++
			column += escapeWidth(n.Style, row[column-1:]) - 1
		}
	}
	return last[0], last[1]
}

// escapeWidth returns how many characters of a row make the next one of the value.
func escapeWidth(style yaml.Style, row []rune) int {
	switch {
	case style&yaml.DoubleQuotedStyle != 0 && row[0] == '\\' && len(row) > 1:
		switch row[1] {
		case 'x':
			return 4
		case 'u':
			return 6
		case 'U':
			return 10
		}
		return 2
	case style&yaml.SingleQuotedStyle != 0 && row[0] == '\'' && len(row) > 1 && row[1] == '\'':
		return 2
	}
	return 1
}

// Whole returns a scalar that is a whole number from least to most.
func (r *Reader) Whole(n *yaml.Node, what string, least, most int64) (int64, bool) {
	expected := fmt.Sprintf("a whole number from %d to %d", least, most)
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" {
		r.Fail(n, expected, "%s is %s", what, KindOf(n))
		return 0, false
	}
	i, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil || i < least || i > most {
		r.Fail(n, expected, "%s is %s", what, Shorten(n.Value))
		return 0, false
	}
	return i, true
}
