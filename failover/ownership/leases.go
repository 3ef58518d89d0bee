package ownership

import "time"

// MaxLeases bounds the shards of one Leases.
const MaxLeases = 4096

// ShardID numbers a shard.
type ShardID uint32

// Leases is the asks for leases, or the answers, of many shards between two regions in one message: what crosses between
// regions while nothing happens grows with the pairs of regions and not with the shards. A member has its own number in
// each shard.
type Leases struct {
	Kind   Kind // Ask or Grant
	Stamp  time.Duration
	Term   time.Duration
	Shards []ShardLease
}

// ShardLease is one shard of a Leases: a Message without what they all share.
type ShardLease struct {
	Shard           ShardID
	From, To        MemberID
	OK              bool
	Epoch, Promised Epoch
	Number, Led     uint64
}

// Put adds a message, if it fits: into an empty Leases any Ask or Grant, then those of the same kind, stamp and term. The
// shards of a region ask at the same time if they tick at the same time.
func (l *Leases) Put(s ShardID, m Message) bool {
	if len(l.Shards) == 0 && (m.Kind == Ask || m.Kind == Grant) {
		l.Kind, l.Stamp, l.Term = m.Kind, m.Stamp, m.Term
	}
	if m.Kind != l.Kind || m.Stamp != l.Stamp || m.Term != l.Term || len(l.Shards) >= MaxLeases {
		return false
	}
	l.Shards = append(l.Shards, ShardLease{s, m.From, m.To, m.OK, m.Epoch, m.Promised, m.Number, m.Led})
	return true
}

// Message returns the message of one shard.
func (l *Leases) Message(i int) (ShardID, Message) {
	s := l.Shards[i]
	return s.Shard, Message{Kind: l.Kind, From: s.From, To: s.To, OK: s.OK, Epoch: s.Epoch, Promised: s.Promised,
		Number: s.Number, Stamp: l.Stamp, Term: l.Term, Led: s.Led}
}

// AppendTo appends the bytes: about ten for each shard.
func (l *Leases) AppendTo(b []byte) []byte {
	b = append(b, Version, byte(l.Kind))
	b = appendNumbers(b, uint64(l.Stamp), uint64(l.Term), uint64(len(l.Shards)))
	for _, s := range l.Shards {
		b = append(appendNumbers(b, uint64(s.Shard), uint64(s.From), uint64(s.To)), bit(s.OK, flagOK))
		b = appendNumbers(b, uint64(s.Epoch), uint64(s.Promised), s.Number, s.Led)
	}
	return b
}

// DecodeLeases takes the bytes apart.
func DecodeLeases(b []byte) (Leases, error) {
	d := open(b)
	l := Leases{Kind: Kind(d.Byte()), Stamp: d.duration(1<<63 - 1), Term: d.duration(MaxLease)}
	n := d.UvarintTo(MaxLeases)
	if l.Kind != Ask && l.Kind != Grant {
		d.Fail("leases of kind %d", l.Kind)
	}
	if n > uint64(len(d.B)) {
		d.Fail("cut short")
	}
	for i := uint64(0); i < n && d.Err == nil; i++ {
		s := ShardLease{Shard: ShardID(d.UvarintTo(1<<32 - 1)), From: d.member(), To: d.member()}
		flags := d.Byte()
		if flags > flagOK {
			d.Fail("bad flags of a lease")
		}
		s.OK = flags == flagOK
		s.Epoch, s.Promised, s.Number, s.Led = d.epoch(), d.epoch(), d.UvarintTo(1<<63-1), d.UvarintTo(1<<64-1)
		l.Shards = append(l.Shards, s)
	}
	if err := d.Done(); err != nil {
		return Leases{}, err
	}
	return l, nil
}
