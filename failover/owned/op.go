package owned

import (
	"encoding/binary"
	"fmt"

	"github.com/watershed-db/watershed/failover/ownership"
)

// Bounds of an operation.
const (
	MaxKey    = 16 << 10                  // bytes of a key
	MaxValue  = 1 << 20                   // bytes of a value
	MaxSweep  = 1 << 10                   // sessions, and rows, that one sweep names
	MaxEntry  = 2*MaxValue + MaxKey + 256 // bytes of an operation's encoding: a key, two values, and what names them
	MaxMillis = 1<<48 - 1                 // the latest time, in the year 10889
	MaxTTL    = 1 << 46                   // ms
)

// TableID names a table for ever: epoch and position of its registry entry.
type TableID [16]byte

// Session is a client's session, which numbers its operations on the shard's owned tables from 1.
type Session struct {
	Born  int64  // when it was opened, in ms: it sets the end of its life
	Nonce uint64 // random, so that no two sessions are one
}

// String returns the session for messages.
func (s Session) String() string { return fmt.Sprintf("%d-%016x", s.Born, s.Nonce) }

// ID names an operation for ever, in all its tries and in every region.
type ID struct {
	Session  Session
	Sequence uint64 // from 1; see Window
}

// String returns the operation's name for messages.
func (i ID) String() string { return fmt.Sprintf("%v/%d", i.Session, i.Sequence) }

// Window is how far a session's sequences that are under way may lie apart. The outcomes of the last Window sequences are
// kept: so a client has answers to all up to n before it sends n+Window.
const Window = 256

// Kind says what an operation does. The numbers are stored.
type Kind uint8

// The kinds of operations.
const (
	Put    Kind = iota + 1 // the key has the value, if the row is as expected
	Delete                 // the key has none, if the row is as expected
	Sweep                  // of an owner: removes what has expired, and what is left of sessions and tables that ended
)

// String returns the kind in a word.
func (k Kind) String() string {
	if k < Put || k > Sweep {
		return fmt.Sprintf("kind %d", uint8(k))
	}
	return [...]string{"put", "delete", "sweep"}[k-Put]
}

// ExpectKind says what a write expects of the row that it replaces. The numbers are stored.
type ExpectKind uint8

// The kinds of expectations.
const (
	Anything   ExpectKind = iota
	Absent                // there is no row, or it has expired
	AtVersion             // the row is of exactly this version
	EqualValue            // the row has exactly this value
)

// Expect is what must hold of a row for a write to be applied.
type Expect struct {
	Kind    ExpectKind
	Version ownership.Mark
	Value   []byte
}

// RowID names a row of a table.
type RowID struct {
	Table TableID
	Key   []byte
}

// Op is one operation on a shard's owned tables: the payload of an entry. What it does depends on it and on the entries
// before it alone. Replicas take it as it comes: who may write what, how big values may be and how far a session's birth may
// lie ahead is checked by the owner before it is appended.
type Op struct {
	Kind Kind
	Time int64 // the owner's, in ms. Rows and sessions expire by the greatest that the log has brought

	ID     ID // Put and Delete
	Table  TableID
	Key    []byte
	Value  []byte // Put
	TTL    int64  // Put: ms until the row expires; 0 for never
	Expect Expect
	// Replays names the operation of the ledger that this one does again; zero for none. Where that one's session still
	// takes operations it is done under its own name, so that it counts once whoever tries it again; else under ID.
	Replays ID

	Closed   int64     // Sweep: sessions born before take no more
	Sessions []Session // Sweep: closed ones, of which nothing need be kept
	Expired  []RowID   // Sweep: rows, removed if they have expired
	Dropped  []RowID   // Sweep: rows of tables that are no more, removed whatever they are
}

// Names returns the name by which the ledger knows the operation: that of the first one, of whatever does it again.
func (o *Op) Names() ID {
	if o.Replays.Sequence > 0 {
		return o.Replays
	}
	return o.ID
}

// Append appends the operation's bytes.
func (o *Op) Append(b []byte) []byte {
	b = binary.AppendUvarint(append(b, Version, byte(o.Kind)), uint64(o.Time))
	if o.Kind == Sweep {
		b = appendNumbers(b, uint64(o.Closed), uint64(len(o.Sessions)))
		for _, s := range o.Sessions {
			b = appendSession(b, s)
		}
		return appendRowIDs(appendRowIDs(b, o.Expired), o.Dropped)
	}
	b = appendID(appendID(b, o.ID), o.Replays)
	b = append(appendBytes(append(b, o.Table[:]...), o.Key), byte(o.Expect.Kind))
	switch o.Expect.Kind {
	case AtVersion:
		b = appendMark(b, o.Expect.Version)
	case EqualValue:
		b = appendBytes(b, o.Expect.Value)
	}
	if o.Kind == Put {
		b = appendBytes(binary.AppendUvarint(b, uint64(o.TTL)), o.Value)
	}
	return b
}

// DecodeOp takes an operation's bytes apart; what it returns shares them. It fails with ownership.ErrEncoding, or
// ownership.ErrVersion.
func DecodeOp(b []byte) (Op, error) {
	r := open(b)
	o := Op{Kind: Kind(r.Byte()), Time: r.millis()}
	switch o.Kind {
	case Put, Delete:
		r.write(&o)
	case Sweep:
		o.Closed = r.millis()
		for n := r.Count(MaxSweep); n > 0 && r.Err == nil; n-- {
			o.Sessions = append(o.Sessions, r.session())
		}
		o.Expired, o.Dropped = r.rowIDs(), r.rowIDs()
	default:
		r.Fail("operation of %v", o.Kind)
	}
	if err := r.Done(); err != nil {
		return Op{}, fmt.Errorf("owned operation: %w", err)
	}
	return o, nil
}

func (r *reader) write(o *Op) {
	o.ID, o.Replays = r.id(), r.id()
	if r.Err == nil && (o.ID.Sequence == 0 || o.Replays.Sequence == 0 && o.Replays != (ID{})) {
		r.Fail("sequence 0")
	}
	o.Table, o.Key = r.table(), r.optional(MaxKey)
	o.Expect.Kind = ExpectKind(r.Byte())
	switch o.Expect.Kind {
	case Anything, Absent:
	case AtVersion:
		o.Expect.Version = r.mark()
	case EqualValue:
		o.Expect.Value = r.optional(MaxValue)
	default:
		r.Fail("expectation %d", o.Expect.Kind)
	}
	if o.Kind == Put {
		o.TTL, o.Value = int64(r.UvarintTo(MaxTTL)), r.optional(MaxValue)
	}
}

func appendSession(b []byte, s Session) []byte {
	return binary.BigEndian.AppendUint64(binary.AppendUvarint(b, uint64(s.Born)), s.Nonce)
}

func appendID(b []byte, i ID) []byte {
	return binary.AppendUvarint(appendSession(b, i.Session), i.Sequence)
}

func (r *reader) id() ID {
	s := r.session()
	return ID{s, r.UvarintTo(1<<63 - 1)}
}

func appendRowIDs(b []byte, list []RowID) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, x := range list {
		b = appendBytes(append(b, x.Table[:]...), x.Key)
	}
	return b
}

func (r *reader) rowIDs() []RowID {
	var list []RowID
	for n := r.Count(MaxSweep); n > 0 && r.Err == nil; n-- {
		t := r.table()
		list = append(list, RowID{t, r.optional(MaxKey)})
	}
	return list
}

// Verdict is what became of an operation. The numbers are stored.
type Verdict uint8

// The verdicts.
const (
	Applied       Verdict = iota + 1
	CompareFailed         // the row was not as expected: nothing changed
	Forgotten             // the sequence lies Window or more behind its session's last: whether it was applied isn't known
	Expired               // the session has ended, and the operation was not seen while it lived, or is forgotten
	TooFar                // the sequence lies more than Window ahead of its session's last
	Malformed             // no operation that this build knows
)

// String returns the verdict in a word or two.
func (v Verdict) String() string {
	if v < Applied || v > Malformed {
		return fmt.Sprintf("verdict %d", uint8(v))
	}
	return [...]string{"applied", "compare failed", "forgotten", "expired", "too far", "malformed"}[v-Applied]
}

// Result is what an operation came to. Every region comes to the same, and so does every retry, but for Again.
type Result struct {
	Verdict Verdict
	At      ownership.Mark // the entry that decided it: of a retry, the first one's
	// Stands says whether the key has a row afterwards, and Version which: where the write was applied, At; where the
	// comparison failed, what stood in its way. After a delete it is false.
	Stands  bool
	Version ownership.Mark
	Again   bool // a retry: decided before, by another entry
}

const (
	flagStands = 1
	flagAgain  = 2
)

// Append appends the result's bytes.
func (r Result) Append(b []byte) []byte {
	f := byte(0)
	if r.Stands {
		f |= flagStands
	}
	if r.Again {
		f |= flagAgain
	}
	b = appendMark(append(b, Version, byte(r.Verdict), f), r.At)
	if r.Stands {
		b = appendMark(b, r.Version)
	}
	return b
}

// DecodeResult takes a result's bytes apart.
func DecodeResult(b []byte) (Result, error) {
	d := open(b)
	r := Result{Verdict: Verdict(d.Byte())}
	f := d.flags(flagStands | flagAgain)
	r.Stands, r.Again, r.At = f&flagStands != 0, f&flagAgain != 0, d.mark()
	if r.Stands {
		r.Version = d.mark()
	}
	if d.Err == nil && (r.Verdict < Applied || r.Verdict > Malformed) {
		d.Fail("%v", r.Verdict)
	}
	if err := d.Done(); err != nil {
		return Result{}, fmt.Errorf("result: %w", err)
	}
	return r, nil
}
