package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/watershed-db/watershed/strict"
)

// MaxFileBytes bounds a configuration file.
const MaxFileBytes = 1 << 20

// unit is a scalar with a form of its own.
type unit interface {
	parse(text string) error
	expects() string
}

// Parse reads a configuration file; filename is for messages. It returns everything that is wrong with it as a
// strict.ErrorList: file, line, column, and what was expected. What it returns is complete and keeps all rules.
func Parse(filename string, src []byte) (Config, error) {
	d := &decoder{file: filename, places: map[string]*yaml.Node{}}
	var c Config
	root := d.document(src)
	if root != nil {
		d.decode(root, reflect.ValueOf(&c).Elem(), "")
	}
	if len(d.errs) > 0 {
		return Config{}, d.sorted()
	}
	c = c.Defaults()
	for _, p := range c.problems() {
		n := d.place(p.path)
		d.fail(n, p.expected, "%s %s", p.path, p.what)
	}
	if len(d.errs) > 0 {
		return Config{}, d.sorted()
	}
	return c, nil
}

// decoder fills a struct from YAML nodes and gathers what does not fit.
type decoder struct {
	file   string
	places map[string]*yaml.Node // by path, such as nodes[0].grpc
	errs   strict.ErrorList
}

func (d *decoder) fail(n *yaml.Node, expected, format string, args ...any) {
	d.errs = append(d.errs, strict.Error{
		File: d.file, Line: max(n.Line, 1), Column: max(n.Column, 1), What: fmt.Sprintf(format, args...), Expected: expected,
	})
}

func (d *decoder) sorted() strict.ErrorList {
	slices.SortStableFunc(d.errs, func(a, b strict.Error) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return d.errs[:min(len(d.errs), strict.MaxErrors)]
}

// place returns the node at a path, or of what is nearest around it.
func (d *decoder) place(path string) *yaml.Node {
	for {
		if n, ok := d.places[path]; ok {
			return n
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return d.places[""]
		}
		path = path[:i]
	}
}

// document returns the one YAML document of a file, nil when it has reported an error.
func (d *decoder) document(src []byte) (root *yaml.Node) {
	top := &yaml.Node{}
	d.places[""] = top
	if len(src) > MaxFileBytes {
		d.fail(top, "", "the file has %d bytes, at most %d are read", len(src), MaxFileBytes)
		return nil
	}
	// The parser is not ours: a bug of its own must not take the process down.
	defer func() {
		if p := recover(); p != nil {
			d.fail(top, "", "the file cannot be read as YAML: %v", p)
			root = nil
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(src))
	var doc, next yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		d.fail(top, "a node's configuration", "the file is empty")
		return nil
	case err != nil:
		d.syntax(err)
		return nil
	}
	if err := dec.Decode(&next); err == nil {
		d.fail(&next, "one document in a file", "a second YAML document")
		return nil
	} else if !errors.Is(err, io.EOF) {
		d.syntax(err)
		return nil
	}
	return doc.Content[0]
}

// syntax reports an error of the YAML parser, which knows the line alone.
func (d *decoder) syntax(err error) {
	what, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
	if rest, ok := strings.CutPrefix(what, "line "); ok {
		if n, msg, ok := strings.Cut(rest, ": "); ok {
			if i, err := strconv.Atoi(n); err == nil {
				line, what = i, msg
			}
		}
	}
	d.fail(&yaml.Node{Line: line}, "YAML", "%s", what)
}

func (d *decoder) decode(n *yaml.Node, v reflect.Value, path string) {
	d.places[path] = n
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if u, ok := v.Addr().Interface().(unit); ok {
		if n.Kind != yaml.ScalarNode {
			d.fail(n, u.expects(), "%s is %s", path, kindOf(n))
		} else if err := u.parse(n.Value); err != nil {
			d.fail(n, u.expects(), "%s is %s", path, kindOf(n))
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.mapping(n, v, path)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.fail(n, "a list", "%s is %s", path, kindOf(n))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, item := range n.Content {
			d.decode(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	case reflect.String:
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
			d.fail(n, "a text (in quotes where it looks like something else)", "%s is %s", path, kindOf(n))
			return
		}
		v.SetString(n.Value)
	case reflect.Int:
		i, err := strconv.ParseInt(n.Value, 10, 32)
		if d.whole(n, err, path) {
			v.SetInt(i)
		}
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Decode(v.Addr().Interface()) != nil {
			d.fail(n, "true or false", "%s is %s", path, kindOf(n))
		}
	case reflect.Uint16:
		i, err := strconv.ParseUint(n.Value, 10, 16)
		if d.whole(n, err, path) {
			v.SetUint(i)
		}
	default:
		panic(fmt.Sprintf("config: field %s is a %s", path, v.Kind()))
	}
}

func (d *decoder) whole(n *yaml.Node, err error, path string) bool {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil {
		d.fail(n, "a whole number in range", "%s is %s", path, kindOf(n))
		return false
	}
	return true
}

// mapping fills a struct. A field is required unless its tag has omitempty.
func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string) {
	what := path
	if what == "" {
		what = "the configuration"
	}
	fields, required, names := fieldsOf(v)
	if n.Kind != yaml.MappingNode {
		d.fail(n, "a mapping with "+strings.Join(names, ", "), "%s is %s", what, kindOf(n))
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		field, known := fields[k.Value]
		line, again := seen[k.Value]
		seen[k.Value] = k.Line
		switch {
		case k.Kind != yaml.ScalarNode || !known:
			d.fail(k, "one of "+strings.Join(names, ", "), "unknown field %q in %s", k.Value, what)
		case again:
			d.fail(k, "each field once", "duplicate %q in %s, first at line %d", k.Value, what, line)
		default:
			d.decode(value, field, strings.TrimPrefix(path+"."+k.Value, "."))
		}
	}
	for _, name := range required {
		if _, ok := seen[name]; !ok {
			d.fail(n, name, "%s lacks %q", what, name)
		}
	}
}

func fieldsOf(v reflect.Value) (fields map[string]reflect.Value, required, names []string) {
	fields = make(map[string]reflect.Value)
	for i := range v.NumField() {
		name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		fields[name] = v.Field(i)
		names = append(names, name)
		if options != "omitempty" {
			required = append(required, name)
		}
	}
	return fields, required, names
}

// kindOf names what a node holds, for messages.
func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.ShortTag() {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "true or false"
	case "!!int", "!!float":
		return "the number " + n.Value
	}
	const most = 60
	if len(n.Value) > most {
		return fmt.Sprintf("the text %q...", n.Value[:most])
	}
	return fmt.Sprintf("the text %q", n.Value)
}
