package table

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// Counter is the sum of increments: of each session a folded prefix and the single ones above it.
type Counter struct {
	floor    int64
	base     Sum // of sessions born before floor
	sessions list[SessionID, tally]
}

type tally struct {
	prefix uint64
	sum    Sum      // of the increments up to prefix
	above  []amount // ascending, beyond prefix; never shared
}

type amount struct {
	sequence uint64
	by       int64
}

// Total returns the sum of all increments.
func (c *Counter) Total() Sum {
	total := c.base
	for _, p := range c.sessions {
		total = total.plus(p.value.total())
	}
	return total
}

func (t tally) total() Sum {
	total := t.sum
	for _, a := range t.above {
		total = total.plus(sumOf(a.by))
	}
	return total
}

// Apply implements Value.
func (c *Counter) Apply(o *Op) bool {
	t, _ := c.sessions.get(o.ID.Session)
	if o.ID.Session.Born < c.floor || o.ID.Sequence <= t.prefix {
		if !mutant.On("retry-counted-twice") {
			return false
		}
		c.base = c.base.plus(sumOf(o.Amount))
		return true
	}
	i, found := slices.BinarySearchFunc(t.above, o.ID.Sequence, amount.compare)
	if found {
		return false
	}
	t.above = slices.Insert(t.above, i, amount{o.ID.Sequence, o.Amount})
	c.sessions.set(o.ID.Session, t)
	return true
}

func (a amount) compare(sequence uint64) int { return cmp.Compare(a.sequence, sequence) }

// Join implements Value.
func (c *Counter) Join(other Value) bool {
	o := other.(*Counter)
	raised := o.floor > c.floor
	if raised {
		c.floor, c.base = o.floor, o.base
		c.sessions = slices.Delete(c.sessions, 0, bornBelow(c.sessions, c.floor))
	}
	theirs := o.sessions[bornBelow(o.sessions, c.floor):]
	return c.sessions.join(theirs, func(_ SessionID, ours *tally, theirs tally) bool {
		if ours.covers(theirs) {
			return false
		}
		*ours = ours.join(theirs)
		return true
	}) || raised
}

// covers reports whether joining o would change nothing.
func (t tally) covers(o tally) bool {
	if o.prefix > t.prefix {
		return false
	}
	return !slices.ContainsFunc(o.above, func(a amount) bool {
		_, found := slices.BinarySearchFunc(t.above, a.sequence, amount.compare)
		return a.sequence > t.prefix && !found
	})
}

func (t tally) join(o tally) tally {
	joined := tally{prefix: t.prefix, sum: t.sum}
	if o.prefix > t.prefix {
		joined.prefix, joined.sum = o.prefix, o.sum
	}
	for len(t.above)+len(o.above) > 0 {
		var next amount
		if len(o.above) == 0 || len(t.above) > 0 && t.above[0].sequence <= o.above[0].sequence {
			next, t.above = t.above[0], t.above[1:]
		} else {
			next, o.above = o.above[0], o.above[1:]
		}
		n := len(joined.above)
		if next.sequence > joined.prefix && (n == 0 || joined.above[n-1].sequence < next.sequence) {
			joined.above = append(joined.above, next)
		}
	}
	return joined
}

// Fold implements Value.
func (c *Counter) Fold(s *Sessions) {
	c.floor = max(c.floor, s.Floor())
	n := bornBelow(c.sessions, c.floor)
	for _, p := range c.sessions[:n] {
		c.base = c.base.plus(p.value.total())
	}
	c.sessions = slices.Delete(c.sessions, 0, n)
	for i := range c.sessions {
		if t := &c.sessions[i].value; len(t.above) > 0 {
			t.fold(s.Prefix(c.sessions[i].key))
		}
	}
}

// fold moves increments up to a prefix into t's own, which ends with the last of them.
func (t *tally) fold(prefix uint64) {
	n := 0
	for ; n < len(t.above) && t.above[n].sequence <= prefix; n++ {
		t.prefix = t.above[n].sequence
		t.sum = t.sum.plus(sumOf(t.above[n].by))
	}
	t.above = slices.Delete(t.above, 0, n)
}

// Empty implements Value. A counter that nothing was ever added to is empty; one that has come back to zero is as well,
// once its sessions are folded.
func (c *Counter) Empty(floor int64) bool {
	return c.base == Sum{} && len(c.sessions) == 0 && c.floor <= floor
}

// Append implements Value.
func (c *Counter) Append(b []byte) []byte {
	b = binary.AppendUvarint(append(b, version, kindCounter), uint64(c.floor))
	b = appendSum(b, c.base)
	b = binary.AppendUvarint(b, uint64(len(c.sessions)))
	since := c.floor
	for _, p := range c.sessions {
		t := p.value
		b = binary.AppendUvarint(appendSession(b, p.key, since), t.prefix)
		if t.prefix > 0 {
			b = appendSum(b, t.sum)
		}
		b = binary.AppendUvarint(b, uint64(len(t.above)))
		last := t.prefix
		for _, a := range t.above {
			b = binary.AppendUvarint(b, a.sequence-last-1)
			b = binary.AppendVarint(b, a.by)
			last = a.sequence
		}
		since = p.key.Born
	}
	return b
}

func (r *reader) counter() *Counter {
	r.head(version, kindCounter)
	c := &Counter{floor: r.millis(0), base: r.sum()}
	c.sessions = readSessions(r, c.floor, func() tally {
		t := tally{prefix: r.Uvarint()}
		if t.prefix > 0 {
			t.sum = r.sum()
		}
		n := r.sessionSize(t.prefix)
		last := t.prefix
		for i := 0; i < n && !r.Failed(); i++ {
			last = r.above(last)
			t.above = append(t.above, amount{last, r.Varint()})
		}
		return t
	})
	return c
}
