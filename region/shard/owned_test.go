package shard

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/watershed-db/watershed/failover/owned"
	"github.com/watershed-db/watershed/failover/ownership"
)

// ownedEntry reads an entry of the owned log: put/KEY/VALUE/N, put/KEY/VALUE/N/OLD where the value is to be OLD, put/KEY/VALUE/N/-
// where there is to be none, delete/KEY/N; N is the sequence of the one session there is. Anything else is taken as it is.
func (a *args) ownedEntry(text string) []byte {
	f := strings.Split(text, "/")
	op := owned.Op{Time: 1000, ID: owned.ID{Session: owned.Session{Born: 1000, Nonce: 1}}}
	switch {
	case f[0] == "put" && len(f) >= 4:
		op.Kind, op.Key, op.Value, op.ID.Sequence = owned.Put, []byte(f[1]), []byte(f[2]), uint64(a.int(f[3]))
		if len(f) > 4 && f[4] == "-" {
			op.Expect.Kind = owned.Absent
		} else if len(f) > 4 {
			op.Expect = owned.Expect{Kind: owned.EqualValue, Value: []byte(f[4])}
		}
	case f[0] == "delete" && len(f) == 3:
		op.Kind, op.Key, op.ID.Sequence = owned.Delete, []byte(f[1]), uint64(a.int(f[2]))
	default:
		return []byte(text)
	}
	return op.Append(nil)
}

// answers prints what the writers of entries are answered, but for entries that are none.
func answers(t *testing.T, list [][]byte) string {
	var b strings.Builder
	for _, raw := range list {
		r, err := owned.DecodeResult(raw)
		if err != nil {
			t.Fatal(err)
		}
		if r.Verdict == owned.Malformed {
			continue
		}
		fmt.Fprintf(&b, "; %v by %v", r.Verdict, r.At)
		if r.Stands && r.Version != r.At {
			fmt.Fprintf(&b, ", %v stands", r.Version)
		}
		if r.Again {
			b.WriteString(", again")
		}
	}
	return b.String()
}

// stagedState returns what is to be staged: all chunks of the state that the shard holds itself.
func (sc *scenario) stagedState() (d owned.Digest, chunks [][]byte) {
	s, err := sc.m.Snapshot()
	if err != nil {
		sc.t.Fatal(err)
	}
	defer s.Close()
	r, err := s.Owned()
	if err != nil {
		sc.t.Fatal(err)
	}
	x, err := r.Export(r.Held())
	if err != nil {
		sc.t.Fatal(err)
	}
	for {
		b, err := x.Next(100)
		if err != nil {
			sc.t.Fatal(err)
		}
		if b == nil {
			return x.Digest(), chunks
		}
		chunks = append(chunks, b)
	}
}

// dumpOwned prints rows held and confirmed, and the ledger.
func dumpOwned(s *Snapshot) (string, error) {
	r, err := s.Owned()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	rec := s.Ownership().Record
	for i, at := range []ownership.Position{r.Held(), rec.Confirmed} {
		v, err := r.At(at)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s at %d:", [...]string{"held", "confirmed"}[i], at)
		_, err = v.Scan(owned.TableID{}, nil, 100, func(key []byte, row owned.Row) bool {
			fmt.Fprintf(&b, " %s=%s(%v)", key, row.Value, row.Version)
			return true
		})
		if err != nil {
			return "", err
		}
		b.WriteByte('\n')
	}
	list, _, err := r.Conflicts(0, 100)
	for _, c := range list {
		fmt.Fprintf(&b, "ledger %v", c.Mark)
		if c.Aside > 0 {
			fmt.Fprintf(&b, " copy %d aside", c.Aside)
		} else {
			fmt.Fprintf(&b, " %v %s=%s /%d", c.Op.Kind, c.Op.Key, c.Op.Value, c.Op.ID.Sequence)
		}
		if c.HadBefore {
			fmt.Fprintf(&b, " over %s", c.Before.Value)
		}
		if c.Settled {
			fmt.Fprintf(&b, " discarded: %s", c.Reason)
		}
		b.WriteByte('\n')
	}
	return b.String(), err
}

// TestOwnedRowsAreBounded: an operation as large as any is logged, answered and read back.
func TestOwnedRowsAreBounded(t *testing.T) {
	m := openMachine(t, twoRegions(), vfs.NewMem())
	defer closeMachine(t, m)
	e := ownership.EpochOf(1, 1)
	big := make([]byte, owned.MaxValue)
	op := owned.Op{Kind: owned.Put, Time: 1, ID: owned.ID{Session: owned.Session{Born: owned.MaxMillis, Nonce: 1 << 63}, Sequence: 1},
		Key: make([]byte, owned.MaxKey), Value: big, TTL: owned.MaxTTL, Expect: owned.Expect{Kind: owned.Absent}}
	swap := op
	swap.ID.Sequence, swap.Expect = 2, owned.Expect{Kind: owned.EqualValue, Value: big}
	c := &Own{Change: ownership.Command{Kind: ownership.Append, Write: ownership.Write{Epoch: e, Prev: ownership.Mark{Epoch: e, Position: 1},
		Last: 3}}, Entries: [][]byte{op.Append(nil), swap.Append(nil)}}
	if n := len(c.Entries[1]); n > MaxOwnEntry {
		t.Fatalf("the largest operation has %d bytes", n)
	}
	raw := Encode(c)
	if _, err := Decode(raw); err != nil {
		t.Fatal(err)
	}
	res, ok := m.Apply(1, raw).(Result)
	if !ok || res.Outcome != Applied || answers(t, res.Entries) != "; applied by 1@1/2; applied by 1@1/3" {
		t.Fatalf("%v%s", res.Outcome, answers(t, res.Entries))
	}
	s, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := s.Owned()
	if err != nil {
		t.Fatal(err)
	}
	v, err := r.At(r.Held())
	if err != nil {
		t.Fatal(err)
	}
	row, ok, err := v.Get(owned.TableID{}, op.Key)
	if err != nil || !ok || len(row.Value) != len(big) || row.Version.Position != 3 {
		t.Errorf("reads %d bytes of %v, %v %v", len(row.Value), row.Version, ok, err)
	}
}

// TestDamagedOwnedRowsStopTheReplica: what contradicts itself is not gone on from.
func TestDamagedOwnedRowsStopTheReplica(t *testing.T) {
	var told error
	st := openStore(t, vfs.NewMem())
	m, err := Open(Options{Config: twoRegions(), Store: st, Fatal: func(err error) { told = err }})
	if err != nil {
		t.Fatal(err)
	}
	defer closeMachine(t, m)
	e := ownership.EpochOf(1, 1)
	c := &Own{Change: ownership.Command{Kind: ownership.Append, Write: ownership.Write{Epoch: e, Prev: ownership.Mark{Epoch: e, Position: 1},
		Last: 2}}, Entries: [][]byte{{1}}}
	gone := &applier{rows: &storedRows{store: st}}
	gone.owned(func(l *owned.Log) { l.Take(owned.Entry{Mark: ownership.Mark{Epoch: e, Position: 9}}) })
	if err := gone.rows.(*storedRows).err; !errors.Is(err, owned.ErrState) || len(gone.w.Sets) > 0 {
		t.Fatalf("an entry out of order: %v, %d writes", err, len(gone.w.Sets))
	}
	if res, ok := m.Apply(1, Encode(c)).(Result); !ok || res.Outcome != Applied || told != nil {
		t.Fatalf("%+v %v", res, told)
	}
}

// ownStep proposes a step of the owned log to the model's shard: writes of the owner, another owner in its place, what is
// confirmed, a state that is taken over, an operator's word.
func (f *fuzzer) ownStep() {
	rec := f.m.State().Ownership().Record
	last := rec.LastMark()
	w := ownership.Write{Epoch: max(last.Epoch, rec.Promised), Prev: last, Confirmed: rec.Confirmed}
	c := &Own{Revision: f.m.State().Ownership().Revision, Change: ownership.Command{Kind: ownership.Append}}
	switch f.int("step", 0, 5) {
	case 0, 1:
		if last.Epoch < w.Epoch {
			w.Control = []ownership.Control{{Mark: ownership.Mark{Epoch: w.Epoch, Position: last.Position + 1}, Config: rec.Config()}}
		}
	case 2: // another owner's, from somewhere in the log on
		p := ownership.Position(f.int("fork", int64(rec.Confirmed), int64(rec.Last)))
		w.Epoch = w.Epoch.Next(2)
		w.Prev = f.markAt(rec, p)
		w.Control = []ownership.Control{{Mark: ownership.Mark{Epoch: w.Epoch, Position: p + 1}, Config: rec.Config()}}
	case 3:
		w.Confirmed = ownership.Position(f.int("confirmed", int64(rec.Confirmed), int64(rec.Last)))
		w.Floor = ownership.Position(f.int("floor", 0, int64(w.Confirmed)))
	case 4:
		f.ownInstall(rec)
		return
	default:
		f.ownDiscard()
		return
	}
	w.Last = w.Prev.Position + ownership.Position(len(w.Control))
	for range f.int("entries", 0, 3) {
		c.Entries = append(c.Entries, f.ownedOp())
		w.Last++
	}
	c.Change.Write = w
	if res := f.apply(c); res.Outcome != Applied || len(res.Entries) != len(c.Entries) {
		f.rt.Fatalf("%v comes to %v: %s, %d answers", c.Change, res.Outcome, res.Reason, len(res.Entries))
	}
}

// markAt returns the entry of a record at a position.
func (f *fuzzer) markAt(r ownership.Record, p ownership.Position) ownership.Mark {
	m := ownership.Mark{Position: p}
	for _, c := range r.Control {
		if c.Mark.Position <= p {
			m.Epoch = c.Mark.Epoch
		}
	}
	return m
}

func (f *fuzzer) ownedOp() []byte {
	op := owned.Op{Kind: owned.Put, Time: f.int("time", 0, 50), Key: []byte{byte('a' + f.int("key", 0, 2))}, TTL: f.int("ttl", 0, 20),
		ID: owned.ID{Session: owned.Session{Born: 1, Nonce: 2}, Sequence: uint64(f.int("sequence", 1, 300))}}
	if f.int("delete", 0, 2) == 0 {
		op.Kind, op.TTL = owned.Delete, 0
	}
	return op.Append(nil)
}

// ownInstall has the shard take its own state over as that of another owner, further on.
func (f *fuzzer) ownInstall(rec ownership.Record) {
	sc := scenario{t: f.t, m: f.m}
	digest, chunks := sc.stagedState()
	at := ownership.Mark{Epoch: max(rec.Promised, rec.LastMark().Epoch).Next(2), Position: rec.Last + ownership.Position(f.int("on", 1, 3))}
	staged := f.apply(&OwnStage{at, digest})
	for i, b := range chunks[:len(chunks)-int(f.int("without", 0, 1))] {
		if res := f.apply(&OwnChunk{staged.Copy, uint32(i), b}); res.Outcome != Applied {
			f.rt.Fatalf("chunk %d is %v", i, res.Outcome)
		}
	}
	c := &Own{Revision: f.m.State().Ownership().Revision, Change: ownership.Command{Kind: ownership.Install, Epoch: at.Epoch, Mark: at,
		Control: ownership.Control{Mark: at, Config: rec.Config()}}}
	if res := f.apply(c); res.Outcome == Refused {
		f.apply(&OwnUnstage{staged.Copy})
	}
}

func (f *fuzzer) ownDiscard() {
	s, err := f.m.Snapshot()
	if err != nil {
		f.rt.Fatal(err)
	}
	defer s.Close()
	r, err := s.Owned()
	if err != nil {
		f.rt.Fatal(err)
	}
	list, _, err := r.Conflicts(0, 5)
	if err != nil {
		f.rt.Fatal(err)
	}
	if i := slices.IndexFunc(list, func(c owned.Conflict) bool { return !c.Settled }); i >= 0 {
		if res := f.apply(&Discard{list[i].Mark, "drawn"}); res.Outcome != Applied {
			f.rt.Fatalf("discard is %v: %s", res.Outcome, res.Reason)
		}
	}
}

// checkOwned holds the head of the owned state to what its values sum up to.
func (f *fuzzer) checkOwned() {
	s, err := f.m.Snapshot()
	if err != nil {
		f.rt.Fatal(err)
	}
	defer s.Close()
	r, err := s.Owned()
	if err != nil {
		f.rt.Fatal(err)
	}
	sum, err := r.Rows(func(_, _ []byte) {})
	if err != nil {
		f.rt.Fatal(err)
	}
	v, err := r.At(r.Held())
	if rec := s.Ownership().Record; err != nil || v.Head() != sum || r.Held() != rec.Last || r.Begins() > rec.Base {
		f.rt.Fatalf("head %+v at %d from %d, the values sum up to %+v; the record is %+v, %v", v.Head(), r.Held(), r.Begins(), sum, rec, err)
	}
}
