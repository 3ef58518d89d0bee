package owned

import (
	"errors"
	"fmt"
	"slices"

	"github.com/watershed-db/watershed/failover/ownership"
	"github.com/watershed-db/watershed/keyspace/mutant"
)

// ErrState says that what is stored contradicts itself, or what is asked of it: somebody's bug, or damage.
var ErrState = errors.New("owned rows contradict themselves")

// Getter reads stored values by key, nil for none. What it returns is not changed and need not last beyond the command.
type Getter interface {
	Get(key []byte) ([]byte, error)
}

// Writes takes what a command changes: all clears count before all sets. Keys and values are given away.
type Writes interface {
	Clear(from, to []byte) // removes the keys in [from, to)
	Set(key, value []byte) // nil removes the key
}

// Log is one region's copy of a shard's owned log and of what it did, while one command is applied. Its methods keep their
// first error, and do nothing after it; Close returns it, or hands over what has changed, all of it at once. The Record of
// the same shard moves beside it: who calls does what ownership.Outcome says, in order: Cut, then Take or Install, then Drop.
type Log struct {
	rows    Getter
	err     error
	own     map[string][]byte // what this command has set; nil where removed
	cleared []string          // prefixes cleared before what own holds

	local, wasLocal local
	head            Head

	before []change // of the entry being taken
}

// change is what a key of the state had before.
type change struct {
	key   string
	value []byte // nil for nothing
}

// Open begins a command.
func Open(rows Getter) *Log {
	l := &Log{rows: rows, own: map[string][]byte{}}
	var err error
	if l.local, err = decodeLocal(l.get(string(keyLocal))); err != nil {
		l.fail(err)
	}
	l.wasLocal = l.local
	l.reload()
	return l
}

// reload reads the head of the state in force.
func (l *Log) reload() {
	h, err := decodeHead(l.get(l.state(string(keyHead))))
	if err != nil {
		l.fail(err)
	}
	l.head = h
}

func (l *Log) fail(err error) {
	if l.err == nil {
		l.err = err
	}
}

func (l *Log) broken(format string, args ...any) {
	l.fail(fmt.Errorf("%w: %s", ErrState, fmt.Sprintf(format, args...)))
}

// Close ends the command.
func (l *Log) Close(w Writes) error {
	if l.local != l.wasLocal {
		l.set(string(keyLocal), l.local.encode())
	}
	if l.err != nil {
		return l.err
	}
	for _, prefix := range l.cleared {
		w.Clear([]byte(prefix), successor(prefix))
	}
	keys := make([]string, 0, len(l.own))
	for k := range l.own {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		w.Set([]byte(k), l.own[k])
	}
	return nil
}

// state returns the full key of a key of the state in force.
func (l *Log) state(key string) string { return copyKey(l.local.copy) + key }

// get returns a value as this command left it so far.
func (l *Log) get(key string) []byte {
	if v, ok := l.own[key]; ok {
		return v
	}
	if l.err != nil || slices.ContainsFunc(l.cleared, func(p string) bool { return len(key) >= len(p) && key[:len(p)] == p }) {
		return nil
	}
	v, err := l.rows.Get([]byte(key))
	if err != nil {
		l.fail(fmt.Errorf("read owned row: %w", err))
	}
	return v
}

func (l *Log) set(key string, value []byte) { l.own[key] = value }

// clear removes all keys that begin with a prefix.
func (l *Log) clear(prefix string) {
	for k := range l.own {
		if len(k) >= len(prefix) && k[:len(prefix)] == prefix {
			delete(l.own, k)
		}
	}
	l.cleared = append(l.cleared, prefix)
}

// change sets a key of the state and notes what it was.
func (l *Log) change(key string, value []byte) {
	full := l.state(key)
	old := l.get(full)
	if old == nil && value == nil {
		return
	}
	if key[0] != keyRow || !mutant.On("before-image-missing") || len(l.before) > 0 {
		l.before = append(l.before, change{key, clone(old)})
	}
	l.head.count(key, old, -1)
	l.head.count(key, value, 1)
	l.set(full, value)
}

// local is what a copy of the log holds; it is the region's own and takes no part in digests.
type local struct {
	copy, next uint32 // the state in force, and the highest copy begun
	last       ownership.Position
	dropped    ownership.Position // nothing is kept of entries up to it
	bytes      uint64             // of the payload of all entries ever taken
	gone       uint64             // of those up to dropped
	turns      uint64             // control entries taken
	ids        uint64             // given to ledger entries, from 1
	kept       uint64             // ledger entries
	unsettled  uint64             // of them, those that no operator has settled
	staged     staged
}

// founded is the position of the entry that every deployment begins with: see ownership.Found.
const founded = 1

func (l local) encode() []byte {
	b := appendNumbers([]byte{Version}, uint64(l.copy), uint64(l.next), uint64(l.last), uint64(l.dropped), l.bytes, l.gone,
		l.turns, l.ids, l.kept, l.unsettled)
	return l.staged.append(b)
}

func decodeLocal(b []byte) (local, error) {
	if len(b) == 0 {
		return local{copy: 1, next: 1, last: founded, dropped: founded}, nil
	}
	d := open(b)
	l := local{copy: uint32(d.UvarintTo(1<<32 - 1)), next: uint32(d.UvarintTo(1<<32 - 1)), last: d.position(), dropped: d.position(),
		bytes: d.Uvarint(), gone: d.Uvarint(), turns: d.Uvarint(), ids: d.Uvarint(), kept: d.Uvarint(), unsettled: d.Uvarint()}
	l.staged.read(d)
	if d.Err == nil && (l.dropped > l.last || l.gone > l.bytes || l.unsettled > l.kept || l.kept > l.ids || l.copy > l.next || l.copy == 0) {
		d.Fail("entries %d to %d", l.dropped, l.last)
	}
	if err := d.Done(); err != nil {
		return local{}, fmt.Errorf("local head: %w", err)
	}
	return l, nil
}

// logged is an entry as it is kept.
type logged struct {
	epoch   ownership.Epoch
	control bool
	size    uint64 // payload of all entries up to this one
	payload []byte
}

const flagControl = 1

func (e logged) encode() []byte {
	f := byte(0)
	if e.control {
		f = flagControl
	}
	return append(appendNumbers([]byte{Version, f}, uint64(e.epoch), e.size), e.payload...)
}

func decodeLogged(b []byte) (logged, error) {
	d := open(b)
	e := logged{control: d.flags(flagControl) != 0, epoch: d.epoch(), size: d.Uvarint()}
	e.payload = d.Take(len(d.B))
	if d.Err != nil {
		return logged{}, fmt.Errorf("entry of the owned log: %w", d.Err)
	}
	return e, nil
}

// entry returns what is kept of an entry.
func (l *Log) entry(p ownership.Position) logged {
	b := l.get(logKey(p))
	if b == nil {
		l.broken("entry %d is missing", p)
		return logged{}
	}
	e, err := decodeLogged(b)
	if err != nil {
		l.fail(err)
	}
	return e
}

// image is what an entry changed.
type image struct {
	applied bool // a client's operation that was applied
	changes []change
}

func (i image) encode() []byte {
	f := byte(0)
	if i.applied {
		f = flagApplied
	}
	b := appendNumbers([]byte{Version, f}, uint64(len(i.changes)))
	for _, c := range i.changes {
		if c.value == nil {
			b = append(appendBytes(b, []byte(c.key)), 0)
			continue
		}
		b = appendBytes(append(appendBytes(b, []byte(c.key)), 1), c.value)
	}
	return b
}

const flagApplied = 1

// maxImage bounds the values that one entry changes: of a sweep, those that it names, and outcomes.
const maxImage = 1 << 20

func decodeImage(b []byte) (image, error) {
	if b == nil {
		return image{}, nil
	}
	d := open(b)
	i := image{applied: d.flags(flagApplied) != 0}
	for n := d.Count(maxImage); n > 0 && d.Err == nil; n-- {
		c := change{key: string(d.Bytes(maxState))}
		if d.flags(1) != 0 {
			c.value = d.Take(d.Count(1 << 30))
		}
		if d.Err == nil && c.key == "" {
			d.Fail("no key")
		}
		i.changes = append(i.changes, c)
	}
	if err := d.Done(); err != nil {
		return image{}, fmt.Errorf("before-images: %w", err)
	}
	return i, nil
}

func (l *Log) image(p ownership.Position) image {
	i, err := decodeImage(l.get(beforeKey(p)))
	if err != nil {
		l.fail(err)
	}
	return i
}
