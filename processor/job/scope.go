package job

import (
	"fmt"
	"strings"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/strict"
)

// typeSet is what is known of a value before any record is seen: the kinds it may have.
type typeSet uint8

const (
	nullType typeSet = 1 << iota
	boolType
	numberType
	textType
	anyType = nullType | boolType | numberType | textType
)

// String names the types other than null.
func (t typeSet) String() string {
	if t&^nullType == 0 {
		return "null"
	}
	if t|nullType == anyType {
		return "anything"
	}
	var names []string
	for _, n := range []struct {
		t    typeSet
		name string
	}{{boolType, "true or false"}, {numberType, "a number"}, {textType, "a text"}} {
		if t&n.t != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, " or ")
}

// fits reports whether a value of type t may be of a type in want. Null fits everywhere.
func (t typeSet) fits(want typeSet) bool { return t&^nullType == 0 || t&want != 0 }

func declaredType(t Type) typeSet {
	switch t {
	case Text:
		return textType | nullType
	case Integer, Float:
		return numberType | nullType
	case Boolean:
		return boolType | nullType
	}
	return anyType
}

func resultType(op crdt.Op) typeSet {
	switch op {
	case crdt.OpRecords, crdt.OpCount, crdt.OpDistinct:
		return numberType
	case crdt.OpSum, crdt.OpAvg, crdt.OpStddev:
		return numberType | nullType
	}
	return anyType
}

// scope says what the names in an expression mean: fields of a record, which are gathered as they are used, or members
// of a row, which are there from the start.
type scope struct {
	what     string // for messages
	record   bool   // names are a record's fields
	nested   bool   // of nested objects
	types    map[string]typeSet
	columns  map[string]Type // CSV: declared columns
	names    []string        // all of types, in order
	unknown  bool            // any name will do: what names there are could not be read
	slots    map[string]int
	fields   []Field
	reads    map[int]bool // where not nil, fields read are marked
	optional int          // above zero, fields read are not marked: the expression answers for their absence
}

// add gives a member of a row the next slot.
func (s *scope) add(name string, t typeSet) {
	s.types[name] = t
	s.slots[name] = len(s.names)
	s.names = append(s.names, name)
}

// declare makes a CSV column known.
func (s *scope) declare(name string, t Type) {
	if s.columns == nil {
		s.columns = make(map[string]Type)
	}
	s.columns[name] = t
	s.types[name] = declaredType(t)
	s.names = append(s.names, name)
}

// field returns the slot and type of a name, or what is wrong with it.
func (s *scope) field(path []string) (slot int, t typeSet, problem string) {
	if !s.record {
		return s.member(strings.Join(path, "."))
	}
	name := strings.Join(path, ".")
	t = anyType
	if s.nested {
		for _, part := range path {
			if strings.Contains(part, ".") {
				return 0, t, fmt.Sprintf("%q: a json name with a dot in it is not supported (nested names are written a.b)", part)
			}
		}
	} else {
		if len(path) > 1 {
			return 0, t, fmt.Sprintf(`%s: csv has no nested fields (a column of that name is written $[%q])`, name, name)
		}
		known, ok := s.types[name]
		if s.types != nil && !ok {
			return 0, t, fmt.Sprintf("unknown column %q%s", strict.Shorten(name), strict.DidYouMean(name, s.names))
		}
		if ok {
			t = known
		}
	}
	slot, ok := s.slots[name]
	if !ok {
		if len(s.fields) == MaxFields {
			return 0, t, fmt.Sprintf("more than %d fields of one source", MaxFields)
		}
		slot = len(s.fields)
		s.slots[name] = slot
		s.fields = append(s.fields, Field{name, s.columns[name]})
	}
	if s.reads != nil && s.optional == 0 {
		s.reads[slot] = true
	}
	return slot, t, ""
}

func (s *scope) member(name string) (slot int, t typeSet, problem string) {
	if slot, ok := s.slots[name]; ok {
		return slot, s.types[name], ""
	}
	if s.unknown {
		return 0, anyType, ""
	}
	return 0, anyType, fmt.Sprintf("unknown name %q%s", strict.Shorten(name), strict.DidYouMean(name, s.names))
}
