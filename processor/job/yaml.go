package job

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

// reader walks the nodes of one file and gathers what is wrong with it.
type reader struct {
	file  string
	lines [][]rune
	errs  ErrorList
}

// pair is a member of a mapping. The zero pair stands for a member that is not there.
type pair struct {
	key, value *yaml.Node
}

func (p pair) given() bool { return p.value != nil }

func (r *reader) fail(n *yaml.Node, expected, format string, args ...any) {
	r.failAt(n.Line, n.Column, expected, format, args...)
}

func (r *reader) failAt(line, column int, expected, format string, args ...any) {
	r.errs = append(r.errs, Error{r.file, max(line, 1), max(column, 1), fmt.Sprintf(format, args...), expected})
}

// document parses src, which must be one YAML document. It returns nil when it has reported an error.
func (r *reader) document(src []byte) (root *yaml.Node) {
	if !utf8.Valid(src) {
		at := bytes.IndexFunc(src, func(c rune) bool { return c == utf8.RuneError })
		r.failAt(1+bytes.Count(src[:at], []byte("\n")), 1, "", "the file is not UTF-8")
		return nil
	}
	for _, line := range strings.Split(string(src), "\n") {
		r.lines = append(r.lines, []rune(line))
	}
	// The parser is not ours and the bytes come from outside: a bug of its own must not take the process down.
	defer func() {
		if p := recover(); p != nil {
			r.failAt(1, 1, "", "the file cannot be read as YAML: %v", p)
			root = nil
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(src))
	var doc, next yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		r.failAt(1, 1, "name, sources and window", "the file is empty")
		return nil
	} else if err != nil {
		r.syntax(err)
		return nil
	}
	if err := dec.Decode(&next); err == nil {
		r.fail(&next, "one job in a file", "a second YAML document")
		return nil
	} else if !errors.Is(err, io.EOF) {
		r.syntax(err)
		return nil
	}
	return doc.Content[0]
}

// syntax reports an error of the YAML parser, which knows the line alone: the line before where its grammar does not
// fit, and none where an alias names no anchor.
func (r *reader) syntax(err error) {
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
	for i := line - 1; find != "" && i >= 0 && i < len(r.lines); i++ {
		if before, _, ok := strings.Cut(string(r.lines[i]), find); ok {
			line, column = i+1, utf8.RuneCountInString(before)+1
			break
		}
	}
	line = min(max(line, 1), len(r.lines))
	if column == 0 {
		for column = 1; column <= len(r.lines[line-1]) && unicode.IsSpace(r.lines[line-1][column-1]); {
			column++
		}
	}
	r.failAt(line, column, "YAML", "%s", what)
}

// kindOf names what a node holds, for messages.
func kindOf(n *yaml.Node) string {
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
		return fmt.Sprintf("the text %q", shorten(n.Value))
	}
	return "a " + n.ShortTag()
}

func shorten(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}

// pairs returns the members of a mapping in order; it reports duplicates, and keys that are no plain text.
func (r *reader) pairs(n *yaml.Node, what, expected string) []pair {
	if n.Kind != yaml.MappingNode {
		r.fail(n, expected, "%s is %s", what, kindOf(n))
		return nil
	}
	out := make([]pair, 0, len(n.Content)/2)
	seen := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!null" || k.ShortTag() == "!!merge" {
			r.fail(k, "a name", "a member of %s is named by %s", what, kindOf(k))
			continue
		}
		if first, dup := seen[k.Value]; dup {
			r.fail(k, "each name once", "duplicate %q in %s, first at line %d", k.Value, what, first.Line)
			continue
		}
		seen[k.Value] = k
		out = append(out, pair{k, v})
	}
	return out
}

// fields returns the members of a mapping by name, reporting those that are not among known.
func (r *reader) fields(n *yaml.Node, what string, known ...string) map[string]pair {
	list := strings.Join(known, ", ")
	out := make(map[string]pair)
	for _, p := range r.pairs(n, what, "a mapping with "+list) {
		ok := false
		for _, k := range known {
			ok = ok || k == p.key.Value
		}
		if !ok {
			r.fail(p.key, "one of "+list, "unknown field %q in %s%s", p.key.Value, what, didYouMean(p.key.Value, known))
			continue
		}
		out[p.key.Value] = p
	}
	return out
}

// need returns the named member, reporting its absence at parent.
func (r *reader) need(parent *yaml.Node, m map[string]pair, what, name, expected string) (*yaml.Node, bool) {
	p := m[name]
	if !p.given() && parent.Kind == yaml.MappingNode {
		r.fail(parent, expected, "%s lacks %q", what, name)
	}
	return p.value, p.given()
}

// items returns the elements of a list.
func (r *reader) items(n *yaml.Node, what, expected string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		r.fail(n, expected, "%s is %s", what, kindOf(n))
		return nil
	}
	return n.Content
}

// text returns a scalar that is a text.
func (r *reader) text(n *yaml.Node, what, expected string) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		hint := ""
		if n.Kind == yaml.ScalarNode && n.ShortTag() != "!!null" {
			hint = fmt.Sprintf(" (quote it where a text is meant: %q)", shorten(n.Value))
		}
		r.fail(n, expected, "%s is %s%s", what, kindOf(n), hint)
		return "", false
	}
	return n.Value, true
}

// choice returns a scalar that is one of the allowed texts.
func (r *reader) choice(n *yaml.Node, what string, allowed ...string) (string, bool) {
	expected := strings.Join(allowed, " | ")
	s, ok := r.text(n, what, expected)
	if !ok {
		return "", false
	}
	for _, a := range allowed {
		if a == s {
			return s, true
		}
	}
	r.fail(n, expected, "%s is %q%s", what, shorten(s), didYouMean(s, allowed))
	return "", false
}

// later reports something that the format knows and this version does not do.
func (r *reader) later(n *yaml.Node, what, expected string) {
	r.fail(n, expected, "%s is not supported yet", what)
}

// place returns where in the file the character at offset (in runes) of a scalar's value stands. White space may be
// folded and quotes escaped between the two, so it counts the other characters.
func (r *reader) place(n *yaml.Node, offset int) (line, column int) {
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
	for seen := 0; line <= len(r.lines); line, column = line+1, 1 {
		for row := r.lines[line-1]; column <= len(row); column++ {
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
