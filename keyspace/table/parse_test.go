package table

import (
	"errors"
	"strings"
	"testing"

	"github.com/watershed-db/watershed/strict"
)

const drivers = `name: drivers
type: owned            # one region decides
durability: quorum
ttl: 24h
value: {max_bytes: 1024}
`

func TestParse(t *testing.T) {
	for src, want := range map[string]Def{
		drivers: {"drivers", Owned, Quorum, 86_400_000, 1024},
		"\ufeffname: a\ntype: owned\ndurability: region\n":    {"a", Owned, Region, 0, 65536},
		"{name: '7', type: counter}":                          {"7", Counter, 0, 0, 65536},
		"name: a\ntype: updown\n":                             {"a", UpDown, 0, 0, 65536},
		"name: a\ntype: register\nvalue: {max_bytes: 262144}": {"a", Register, 0, 0, 256 << 10},
		"name: a\ntype: set\n":                                {"a", Set, 0, 0, 65536},
		"name: a\ntype: lww-set\n":                            {"a", LWWSet, 0, 0, 65536},
	} {
		got, err := Parse("t.yaml", []byte(src))
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v", src, got, err)
			continue
		}
		if err := got.Check(); err != nil {
			t.Error(err)
		}
	}
}

// Each replaces a line of the file; errors stand at their place.
func TestMistakes(t *testing.T) {
	for _, c := range []struct{ old, new, want string }{
		{"name: drivers", "name: Drivers", `1:7: name is "Drivers"; expected a name of lower-case letters, digits and dashes, at most 63`},
		{"name: drivers", "", `2:1: the table lacks "name"; expected a name of`},
		{"name: drivers", "name: drivers\ntags: drivers", `2:1: unknown field "tags" in the table; expected one of name, type, durability, ttl, value`},
		{"name: drivers", "name: 7", `1:7: name is a number (quote it where a text is meant: "7"); expected a name`},
		{"name: drivers", "name: a\nname: b", `2:1: duplicate "name" in the table, first at line 1; expected each name once`},
		{"type: owned", "type: owner", `2:7: type is "owner" (did you mean "owned"?); expected owned | counter`},
		{"type: owned", "kind: owned", `1:1: the table lacks "type"; expected owned, counter`},
		{"type: owned", "type: counter", `3:1: a table of type counter has no "durability"; expected durability with type owned only`},
		{"durability: quorum", "durability: all", `3:13: durability is "all"; expected quorum | region`},
		{"durability: quorum\n", "", `1:1: an owned table lacks "durability"; expected quorum, or region`},
		{"ttl: 24h", "ttl: 24", `4:6: ttl is a number; expected a duration`},
		{"ttl: 24h", "ttl: 10ms", `4:6: ttl is 10ms; expected at least 1s`},
		{"ttl: 24h", "ttl: 36501d", `4:6: ttl: "36501d" is more than a hundred years; expected a duration`},
		{"{max_bytes: 1024}", "1024", `5:8: value is a number; expected a mapping with max_bytes`},
		{"{max_bytes: 1024}", "{}", `5:8: value lacks "max_bytes"; expected a number of bytes`},
		{"max_bytes: 1024", "max_bytes: 0", `5:20: value.max_bytes is 0; expected a whole number from 1 to 262144`},
		{"max_bytes: 1024", "max_bytes: 262145", `5:20: value.max_bytes is 262145; expected a whole number`},
		{"max_bytes: 1024", "max_bytes: 99999999999999999999", `5:20: value.max_bytes is a number; expected a whole number from 1 to 262144`},
		{"max_bytes: 1024", "max_bytes: 1k", `5:20: value.max_bytes is the text "1k"; expected a whole number`},
		{drivers, "", `1:1: the file is empty; expected name and type`},
		{drivers, "- a", `1:1: the table is a list; expected a mapping with name`},
		{"name: drivers", "name: [", `3:1: did not find expected ',' or ']'; expected YAML`},
		{"value: {max_bytes: 1024}", "---\nname: b", `5:1: a second YAML document; expected one table in a file`},
	} {
		_, err := Parse("t.yaml", []byte(strings.Replace(drivers, c.old, c.new, 1)))
		var list strict.ErrorList
		if !errors.As(err, &list) || !strings.HasPrefix(err.Error(), "t.yaml:"+c.want) {
			t.Errorf("%q for %q:\n     %v\nwant t.yaml:%s", c.new, c.old, err, c.want)
		}
	}
	if _, err := Parse("t.yaml", make([]byte, MaxFileBytes+1)); err == nil || !strings.Contains(err.Error(), "at most 65536") {
		t.Error(err)
	}
}

// What a file means does not depend on how it is written; everything else it says is part of it.
func TestMeaning(t *testing.T) {
	d, err := Parse("", []byte(drivers))
	if err != nil {
		t.Fatal(err)
	}
	same, err := Parse("", []byte("value:\n  max_bytes: 1024\nttl: 1d\ndurability: 'quorum'\ntype: owned\nname: others\n"))
	if err != nil || same.Meaning() != d.Meaning() || d.Diff(same) != nil {
		t.Errorf("%+v, %v: %q", same, err, d.Diff(same))
	}
	for _, c := range [][2]string{
		{"quorum", "region"}, {"24h", "25h"}, {"1024", "1025"}, {"owned            # one region decides\ndurability: quorum\nttl: 24h", "set"},
	} {
		other, err := Parse("", []byte(strings.Replace(drivers, c[0], c[1], 1)))
		if err != nil || other.Meaning() == d.Meaning() || len(d.Diff(other)) == 0 {
			t.Errorf("%s: %+v, %v", c[1], other, err)
		}
		if got := d.Diff(other); c[1] == "set" && strings.Join(got, " ") != "type durability ttl" {
			t.Errorf("differ in %q", got)
		}
	}
}

// Nothing that Parse takes fails Check, and nothing else is said with another meaning.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{drivers, "{name: a, type: set}", "name: &a b\ntype: *a", "a: [", "ttl: 1s\nname: a\ntype: owned\ndurability: region"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		d, err := Parse("t.yaml", src)
		var list strict.ErrorList
		if err != nil {
			if !errors.As(err, &list) || len(list) == 0 || len(list) > strict.MaxErrors {
				t.Fatalf("%v", err)
			}
			return
		}
		if err := d.Check(); err != nil {
			t.Fatalf("%+v: %v", d, err)
		}
	})
}
