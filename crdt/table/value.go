package table

import (
	"fmt"
)

// Type is the type of a table. Its number is stored and never changes its meaning.
type Type uint8

// The types of tables that every region writes at once.
const (
	TypeCounter  Type = 1 // grows only
	TypeUpDown   Type = 2
	TypeRegister Type = 3 // the last writer wins
	TypeSet      Type = 4 // a remove takes out what it has observed
	TypeLWWSet   Type = 5 // per element the last writer wins
)

var typeNames = [...]string{TypeCounter: "counter", TypeUpDown: "updown", TypeRegister: "register", TypeSet: "set",
	TypeLWWSet: "lww-set"}

// ParseType returns the type that a table's file calls name, and whether there is one.
func ParseType(name string) (Type, bool) {
	for t := TypeCounter; int(t) < len(typeNames); t++ {
		if typeNames[t] == name {
			return t, true
		}
	}
	return 0, false
}

// String returns the type's name in a table's file.
func (t Type) String() string {
	if t >= TypeCounter && int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// stamped reports whether operations on values of t have stamps.
func (t Type) stamped() bool { return t == TypeRegister || t == TypeLWWSet }

func (t Type) takes(k Kind) bool {
	switch t {
	case TypeCounter, TypeUpDown:
		return k == Increment
	case TypeRegister:
		return k == Assign || k == Clear
	case TypeSet, TypeLWWSet:
		return k == Insert || k == Remove
	}
	return false
}

// Value is the state of one key in one copy of a shard: a function of the operations that it holds, of the floor below
// which it holds them all, and of what it has folded. Joining copies joins those sets of operations, and so is
//
//	idempotent:  join(a, a) = a
//	commutative: join(a, b) = join(b, a)
//	associative: join(join(a, b), c) = join(a, join(b, c))
//
// Values that hold the same operations and were folded by equal Sessions have equal encodings. A Value is not safe for
// concurrent use.
type Value interface {
	// Apply takes an operation that has passed Op.Validate, as Join would take a copy that holds it alone: once, however
	// often and in whatever order it comes. It reports whether the value changed. The value may keep o's Data.
	Apply(o *Op) bool
	// Join takes all that another copy of the same key holds, and reports whether the value changed. other stays as it
	// is; what both hold afterwards, neither changes. It panics where other is of another Go type.
	Join(other Value) bool
	// Fold drops what is kept only for operations that can't come any more: single operations go into a prefix of their
	// session, sessions into the value's base, removals out of it. s are the Sessions of the same copy. What the value
	// reads as stays the same.
	Fold(s *Sessions)
	// Empty reports whether New with the given floor, which is that of the copy's Sessions, says as much: then the value
	// need not be kept.
	Empty(floor int64) bool
	// Append appends the value's encoding.
	Append(b []byte) []byte
}

// New returns an empty value of type t as a copy holds it whose Sessions have the given floor: all that was done below it
// has left nothing. It panics where t is none.
func New(t Type, floor int64) Value {
	switch t {
	case TypeCounter, TypeUpDown:
		return &Counter{floor: floor}
	case TypeRegister:
		return &Register{floor: floor}
	case TypeSet:
		return &Set{seen: ids{floor: floor}}
	case TypeLWWSet:
		return &LWWSet{floor: floor}
	}
	panic(fmt.Sprintf("table: a value of %s", t))
}

// The first byte of every encoding is the version, the second one of these. A counter that only grows is stored as any.
const (
	version byte = 1

	kindCounter  byte = 1
	kindRegister byte = 2
	kindSet      byte = 3
	kindLWWSet   byte = 4
	kindOp       byte = 5
	kindSessions byte = 6
	kindMarks    byte = 7
)

// TypeOf returns the type of value that an encoding begins as one of, and whether there is one. A counter is TypeUpDown,
// whether it only grows or not.
func TypeOf(b []byte) (Type, bool) {
	if len(b) < 2 || b[0] != version {
		return 0, false
	}
	switch b[1] {
	case kindCounter:
		return TypeUpDown, true
	case kindRegister:
		return TypeRegister, true
	case kindSet:
		return TypeSet, true
	case kindLWWSet:
		return TypeLWWSet, true
	}
	return 0, false
}

// Decode decodes one whole value of type t, which keeps nothing of b. It fails with crdt.ErrEncoding, also where b holds a
// value of another type. What it takes is the one encoding of what it returns. It panics where t is none.
func Decode(t Type, b []byte) (Value, error) {
	r := open(b)
	var v Value
	switch t {
	case TypeCounter, TypeUpDown:
		v = r.counter()
	case TypeRegister:
		v = r.register()
	case TypeSet:
		v = r.set()
	case TypeLWWSet:
		v = r.lwwSet()
	default:
		panic(fmt.Sprintf("table: a value of %s", t))
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("%s: %w", t, err)
	}
	return v, nil
}
