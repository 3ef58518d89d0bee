package shard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
)

// ErrState marks a stored state that this shard can't take up: of another shard or deployment, of a newer version, or
// damaged.
var ErrState = errors.New("stored shard state does not fit")

// metaVersion is the first byte of every stored record but marks, files and reasons.
const metaVersion = 1

// Small values of the store, by the first byte of their names:
//
//	'i'                                       identity: self, members, shard, shards
//	'n' name                                  note
//	'v'                                       format in force, where it is not 1
//	'u'                                       unreachable regions
//	'g' generation                            head of a generation
//	'f' generation                            its job file
//	'k' generation region                     head of a group
//	'p' generation source                     standing
//	'h' generation source count (8)          a mark the source stood at
//	'd' generation end (8) user key           dirty mark: the index of the last change
//	'r' position (8)                          registry entry
//	'c' generation source                     first point, decided here, and the topic's id
//	't' generation source                     why the source was stopped
//	'b'                                       id of the last table entry that the shard was told of
//	'b' table                                 what a live table is
//	'o'                                       what is promised and held of the owned log
//	'l' position (8)                          payload of an entry of the owned log
//	'w' ...                                   tables that every region writes at once, see tables.go
//
// Integers in names are big-endian; window ends have their sign bit inverted.
const (
	nameIdentity   = 'i'
	nameNote       = 'n'
	nameFormat     = 'v'
	nameReach      = 'u'
	nameGeneration = 'g'
	nameFile       = 'f'
	nameGroup      = 'k'
	nameStanding   = 'p'
	nameMark       = 'h'
	nameDirty      = 'd'
	nameEntry      = 'r'
	nameDecided    = 'c'
	nameStopped    = 't'
	nameTold       = 'b'
	nameOwn        = 'o'
	nameTable      = 'w'
)

// KeptMarks is how many of the marks that a source stood at are kept, to confirm lower points by (rules A5).
const KeptMarks = 1 << 16

func name(kind byte, parts ...[]byte) []byte {
	return keyspace.MetaKey(bytes.Join(append([][]byte{{kind}}, parts...), nil))
}

func identityKey() []byte { return name(nameIdentity) }

func formatKey() []byte { return name(nameFormat) }

func reachKey() []byte { return name(nameReach) }

func headKey(id crdt.GenerationID) []byte { return name(nameGeneration, id[:]) }

func fileKey(id crdt.GenerationID) []byte { return name(nameFile, id[:]) }

func groupKey(id crdt.GenerationID, region crdt.RegionID) []byte {
	return name(nameGroup, id[:], []byte(region))
}

// sourceName returns the name of what is kept of a source; of all sources for nil.
func sourceName(kind byte, id crdt.GenerationID, s *crdt.Source) []byte {
	b := name(kind, id[:])
	if s != nil {
		b = crdt.AppendSource(b, *s)
	}
	return b
}

func standingKey(id crdt.GenerationID, s crdt.Source) []byte { return sourceName(nameStanding, id, &s) }

func decidedKey(id crdt.GenerationID, s *crdt.Source) []byte { return sourceName(nameDecided, id, s) }

func stoppedKey(id crdt.GenerationID, s *crdt.Source) []byte { return sourceName(nameStopped, id, s) }

func keptKey(id crdt.GenerationID, s crdt.Source, n uint64) []byte {
	return binary.BigEndian.AppendUint64(sourceName(nameMark, id, &s), n)
}

func dirtyKey(id crdt.GenerationID, end int64, key string) []byte {
	b := binary.BigEndian.AppendUint64(name(nameDirty, id[:]), uint64(end)^1<<63)
	return append(b, key...)
}

// dirtyRange returns the bounds of the marks of windows that end in [from, to].
func dirtyRange(id crdt.GenerationID, from, to int64) (lo, hi []byte) {
	if to == crdt.MaxTime {
		_, hi = prefixRange(name(nameDirty, id[:]))
	} else {
		hi = dirtyKey(id, to+1, "")
	}
	return dirtyKey(id, from, ""), hi
}

func entryKey(position uint64) []byte {
	return binary.BigEndian.AppendUint64(name(nameEntry), position)
}

// prefixRange returns the bounds of the keys that begin with prefix, which is not 0xff throughout.
func prefixRange(prefix []byte) (lo, hi []byte) {
	hi = bytes.Clone(prefix)
	for i := len(hi) - 1; ; i-- {
		if hi[i]++; hi[i] != 0 {
			return prefix, hi[:i+1]
		}
	}
}

// generationPrefixes lists what the names of all that is kept of a generation begin with, but for what the registry keeps.
func generationPrefixes(id crdt.GenerationID) [][]byte {
	var list [][]byte
	for _, kind := range [...]byte{nameGeneration, nameFile, nameGroup, nameStanding, nameMark, nameDirty} {
		list = append(list, name(kind, id[:]))
	}
	return list
}

func (c *Config) identity() []byte {
	b := appendRegions(appendString([]byte{metaVersion}, string(c.Self)), c.Regions)
	return appendUvarint(appendUvarint(b, uint64(c.Shard)), uint64(c.Shards))
}

func (g *Generation) appendHead(b []byte) []byte {
	b = append(appendString(append(b, metaVersion), g.Name), g.Meaning[:]...)
	b = appendVarint(appendPins(b, g.Pinned), g.Horizon)
	b = appendVarint(appendVarint(b, g.Watermark), g.Partial)
	b = appendUvarint(appendRegions(b, g.Excluded), g.Expired)
	o := g.Outbox
	b = appendUvarint(appendVarint(appendVarint(b, o.Full), o.Partial), o.Last)
	b = appendBool(b, o.Open != nil)
	if o.Open != nil {
		b = appendUvarint(appendVarint(appendBool(b, o.Open.Partial), o.Open.To), o.Open.Index)
	}
	return b
}

func (g *Generation) readHead(r *reader) {
	r.version()
	g.Name, g.Meaning, g.Pinned = r.string(MaxName), r.hash32(), r.pins()
	g.Horizon, g.Watermark, g.Partial = r.varint(), r.varint(), r.varint()
	g.Excluded, g.Expired = r.regions(), r.uint64()
	o := &g.Outbox
	o.Full, o.Partial, o.Last = r.varint(), r.varint(), r.uint64()
	if r.bool() {
		o.Open = &OpenPlan{r.bool(), r.varint(), r.uint64()}
	}
}

func (grp *group) appendHead(b []byte) []byte {
	b = appendUvarint(appendBool(append(b, metaVersion), grp.declared), uint64(grp.copy))
	b = appendBool(appendUvarint(b, uint64(grp.next)), grp.staged != nil)
	if grp.staged != nil {
		b = appendUvarint(appendUvarint(b, uint64(grp.staged.copy)), uint64(grp.staged.chunks))
	}
	return b
}

func (grp *group) readHead(r *reader) {
	r.version()
	grp.declared, grp.copy, grp.next = r.bool(), r.uint32(), r.uint32()
	if r.bool() {
		grp.staged = &staged{r.uint32(), r.uint32()}
	}
}

func (st Standing) append(b []byte) []byte {
	b = appendBool(appendPoint(append(b, metaVersion), st.Point), st.First != nil)
	if st.First != nil {
		b = appendPoint(b, *st.First)
	}
	return appendUvarint(appendBool(b, st.Idle), st.Kept)
}

func (st *Standing) read(r *reader) {
	r.version()
	st.Point = r.point()
	if r.bool() {
		p := r.point()
		st.First = &p
	}
	st.Idle, st.Kept = r.bool(), r.uint64()
}

func (r *reader) version() {
	switch v := r.byte(); {
	case r.err != nil || v == metaVersion:
	case v < metaVersion:
		r.fail("version %d is unknown", v)
	default:
		r.err = fmt.Errorf("%w: a record of version %d, this build reads %d", ErrNewer, v, metaVersion)
	}
}
