package table

import (
	"encoding/binary"
	"fmt"
)

// Bounds of an operation, in bytes and in number.
const (
	MaxValue    = 1 << 20  // of a register, in bytes
	MaxElement  = 16 << 10 // of a set, in bytes
	MaxObserved = 4096     // ids
)

// Kind says what an operation does. Its number is stored and never changes its meaning.
type Kind uint8

// The kinds of operations.
const (
	Increment Kind = 1 // counters: adds Amount
	Assign    Kind = 2 // register: holds Data, unless it has a later stamp
	Clear     Kind = 3 // register: holds nothing, unless it has a later stamp
	Insert    Kind = 4 // sets: Data is in
	Remove    Kind = 5 // sets: Data is out; of a Set only what Observed names
)

var kindNames = map[Kind]string{Increment: "increment", Assign: "assign", Clear: "clear", Insert: "insert", Remove: "remove"}

// String returns the kind's name for messages.
func (k Kind) String() string {
	if name, ok := kindNames[k]; ok {
		return name
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Op is one operation on one value. It holds all that its effect depends on and is the same in every try; whoever has made
// it changes nothing in it any more.
type Op struct {
	ID     ID
	Kind   Kind
	Amount int64  // Increment
	Time   Time   // registers and LWW-sets: the time of the stamp, given once by the session's Clock
	Data   []byte // Assign: the value; Insert, Remove: the element
	// Observed are the inserts of the element that the client has read, ascending: what Remove takes out and Insert
	// replaces. Sets without stamps only.
	Observed []ID
}

// Stamp returns the operation's stamp.
func (o *Op) Stamp() Stamp { return Stamp{o.Time, o.ID} }

// Validate fails with ErrOperation where no value of type t takes o, and with ErrAhead where its stamp or what it observed
// lies too far ahead of now, in ms. A region checks what comes from its clients; what peers send has been checked.
func (o *Op) Validate(t Type, now, maxAhead int64) error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrOperation, fmt.Sprintf(format, args...))
	}
	switch {
	case !o.ID.valid():
		return bad("no operation is named %s", o.ID)
	case !t.takes(o.Kind):
		return bad("a %s takes no %s", t, o.Kind)
	case t == TypeCounter && o.Amount < 0:
		return bad("a counter only grows, not by %d", o.Amount)
	case len(o.Data) > o.maxData():
		return bad("%d bytes, %d are allowed", len(o.Data), o.maxData())
	case t.stamped() != (o.Time != 0):
		return bad("time %s in a %s", o.Time, t)
	case t.stamped() && o.Time.Millis() < o.ID.Session.Born:
		return bad("stamp %s from before its session %s", o.Time, o.ID.Session)
	case o.Kind != Increment && o.Amount != 0, t != TypeSet && len(o.Observed) > 0:
		return bad("an amount or something observed in %s of a %s", o.Kind, t)
	case len(o.Observed) > MaxObserved:
		return bad("%d ids observed, %d are allowed", len(o.Observed), MaxObserved)
	}
	for i, id := range o.Observed {
		if !id.valid() || i > 0 && o.Observed[i-1].Compare(id) >= 0 || id == o.ID {
			return bad("observed %s out of order", id)
		}
		if err := checkAhead(id.Session.Born, now, maxAhead); err != nil {
			return fmt.Errorf("observed %s: %w", id, err)
		}
	}
	if err := checkAhead(o.Time.Millis(), now, maxAhead); err != nil {
		return fmt.Errorf("stamp %s: %w", o.Time, err)
	}
	return nil
}

func (o *Op) maxData() int {
	switch o.Kind {
	case Assign:
		return MaxValue
	case Insert, Remove:
		return MaxElement
	}
	return 0
}

// Append appends o's encoding.
func (o *Op) Append(b []byte) []byte {
	b = appendID(append(b, version, kindOp, byte(o.Kind)), o.ID)
	if o.Kind == Increment {
		return binary.AppendVarint(b, o.Amount)
	}
	b = binary.AppendUvarint(b, uint64(o.Time))
	if o.Kind == Clear {
		return b
	}
	b = append(binary.AppendUvarint(b, uint64(len(o.Data))), o.Data...)
	if o.Kind == Assign {
		return b
	}
	return appendIDs(b, o.Observed)
}

// DecodeOp decodes one whole operation, whose Data is b's. It fails with crdt.ErrEncoding. It looks at the form and the
// bounds of sizes; Validate at the rest.
func DecodeOp(b []byte) (Op, error) {
	r := open(b)
	r.head(version, kindOp)
	o := Op{Kind: Kind(r.Byte())}
	o.ID = r.id()
	switch o.Kind {
	case Increment:
		o.Amount = r.Varint()
	case Assign, Insert, Remove, Clear:
		o.Time = Time(r.Uvarint())
	default:
		r.Fail("operation of %s", o.Kind)
	}
	if limit := o.maxData(); limit > 0 {
		n := r.Size()
		if n > limit {
			r.Fail("%d bytes, %d are allowed", n, limit)
		}
		o.Data = r.Take(n)
	}
	if o.Kind == Insert || o.Kind == Remove {
		o.Observed = r.idList(MaxObserved)
	}
	if err := r.Done(); err != nil {
		return Op{}, fmt.Errorf("operation: %w", err)
	}
	return o, nil
}

// appendIDs appends a number of ids and the ids, which are ascending.
func appendIDs(b []byte, list []ID) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, id := range list {
		b = appendID(b, id)
	}
	return b
}

func (r *reader) idList(limit int) []ID {
	n := r.Size()
	if n > limit {
		r.Fail("%d ids, %d are allowed", n, limit)
		return nil
	}
	var list []ID
	for i := 0; i < n && !r.Failed(); i++ {
		list = append(list, r.id())
		if i > 0 && list[i-1].Compare(list[i]) >= 0 {
			r.Fail("ids out of order")
		}
	}
	return list
}
