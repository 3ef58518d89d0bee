package shard

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/watershed-db/watershed/failover/owned"
	"github.com/watershed-db/watershed/failover/ownership"
)

// exampleOwn returns commands on the owned log of two regions, owned by the first.
func exampleOwn() []Command {
	at := ownership.Mark{Epoch: ownership.EpochOf(1, 1), Position: 4}
	conf := ownership.NewConfig(ownership.Data, ownership.Data)
	control := []ownership.Control{{Mark: ownership.Mark{Epoch: ownership.EpochOf(2, 2), Position: 5}, Config: conf}}
	write := ownership.Write{Epoch: control[0].Mark.Epoch, Prev: at, Control: control, Last: 7, Confirmed: 4, Floor: 2}
	return []Command{
		&Own{7, ownership.Command{Kind: ownership.Append, Write: write}, [][]byte{[]byte("put"), {}}},
		&Rejoin{8, 3, 1, true},
		&OwnStage{at, owned.Digest{1, 2}},
		&OwnChunk{2, 3, []byte("rows")},
		&OwnUnstage{2},
		&Discard{at, "not wanted"},
	}
}

// epoch reads "counter@member".
func (a *args) epoch(text string) ownership.Epoch {
	n, m, _ := strings.Cut(text, "@")
	return ownership.EpochOf(uint64(a.int(n)), ownership.MemberID(a.int(m)))
}

func (a *args) mark(text string) ownership.Mark {
	e, p, _ := strings.Cut(text, "/")
	return ownership.Mark{Epoch: a.epoch(e), Position: ownership.Position(a.int(p))}
}

func (a *args) number(name string) int64 {
	if a.named[name] == "" {
		return 0
	}
	return a.int(a.named[name])
}

// owned reads the lines of the owned log:
//
//	promise epoch
//	append epoch prev=epoch/position last=n [begin] [confirmed=n] [floor=n] [entries=a,b]
//	state-at epoch at=epoch/position                 begins the log behind a state
//	rejoin member incarnation [alone]
//	own-stage at=epoch/position [other]                  begins to take over the state that the shard itself holds, or another
//	own-chunk copy number                                of that state
//	own-unstage copy
//	discard epoch/position reason
//
// all of the present revision, but for rev=n.
func (sc *scenario) owned(verb string, a *args) Command {
	now := sc.m.State().Ownership()
	rev := now.Revision
	if a.named["rev"] != "" {
		rev = uint64(a.number("rev"))
	}
	conf := now.Record.Config()
	switch verb {
	case "promise":
		return &Own{Revision: rev, Change: ownership.Command{Kind: ownership.Promise, Epoch: a.epoch(a.next())}}
	case "append":
		w := ownership.Write{Epoch: a.epoch(a.next()), Prev: a.mark(a.named["prev"]), Last: ownership.Position(a.number("last")),
			Confirmed: ownership.Position(a.number("confirmed")), Floor: ownership.Position(a.number("floor"))}
		if len(a.words) > 0 {
			w.Control = []ownership.Control{{Mark: ownership.Mark{Epoch: w.Epoch, Position: w.Prev.Position + 1}, Config: conf}}
		}
		c := &Own{Revision: rev, Change: ownership.Command{Kind: ownership.Append, Write: w}}
		for _, e := range strings.FieldsFunc(a.named["entries"], func(r rune) bool { return r == ',' }) {
			c.Entries = append(c.Entries, a.ownedEntry(e))
		}
		return c
	case "state-at":
		at := a.mark(a.named["at"])
		return &Own{Revision: rev, Change: ownership.Command{Kind: ownership.Install, Epoch: a.epoch(a.next()), Mark: at,
			Control: ownership.Control{Mark: at, Config: conf}}}
	case "own-stage":
		d, _ := sc.stagedState()
		if len(a.words) > 0 {
			d[0]++
		}
		return &OwnStage{a.mark(a.named["at"]), d}
	case "own-chunk":
		_, chunks := sc.stagedState()
		c := &OwnChunk{Copy: uint32(a.int(a.next())), Number: uint32(a.int(a.next()))}
		c.Rows = chunks[min(int(c.Number), len(chunks)-1)]
		return c
	case "own-unstage":
		return &OwnUnstage{uint32(a.int(a.next()))}
	case "discard":
		return &Discard{a.mark(a.next()), a.next()}
	case "rejoin":
		c := &Rejoin{Revision: rev, As: ownership.MemberID(a.int(a.next())), Incarnation: ownership.MemberID(a.int(a.next()))}
		c.Alone = len(a.words) > 0
		return c
	}
	return nil
}

func dumpOwnership(s *Snapshot) (string, error) {
	o := s.Ownership()
	r := o.Record
	var b strings.Builder
	owner, epoch := s.Owner()
	fmt.Fprintf(&b, "member %d of %d revision %d promised %v base %d last %v confirmed %d; %s owns it with %v", r.Self, o.Incarnation,
		o.Revision, r.Promised, r.Base, r.LastMark(), r.Confirmed, owner, epoch)
	if s.Owns() {
		b.WriteString(", this region")
	}
	b.WriteByte('\n')
	list, err := s.OwnEntries(0, r.Last, 1<<20)
	for _, e := range list {
		fmt.Fprintf(&b, "%d %s\n", e.Position, e.Payload)
	}
	return b.String(), err
}

// TestOwnershipIsKept: what a store was found with counts, whatever the configuration says later; and a store that has lost
// its record is not opened.
func TestOwnershipIsKept(t *testing.T) {
	fs := vfs.NewMem()
	cfg := twoRegions()
	m := openMachine(t, cfg, fs)
	if !m.State().Owns() {
		t.Fatal("region a does not own the shard")
	}
	want := m.State().Ownership()
	if res, ok := m.Apply(1, Encode(&Check{})).(Result); !ok || res.Outcome != Applied {
		t.Fatalf("%+v", res)
	}
	closeMachine(t, m)
	cfg.Owner = false
	cfg.Found = ownership.FoundOwned(9, ownership.Config{Number: 1, Highest: 9, Members: []ownership.Member{{ID: 9, Region: "a"}}}, 9)
	m = openMachine(t, cfg, fs)
	defer closeMachine(t, m)
	if got := m.State().Ownership(); !reflect.DeepEqual(got, want) {
		t.Errorf("found with %+v, open with %+v", want, got)
	}
	if m.State().Owns() {
		t.Error("a region that was restored under another number owns what its predecessor did")
	}
	if _, err := readOwnership(&cfg, nil, false, 1); err == nil {
		t.Error("a store without the record is taken")
	}
}

// TestOwnEntriesAreBounded: entries come in pieces of about the size asked for, and no piece is empty.
func TestOwnEntriesAreBounded(t *testing.T) {
	m := openMachine(t, twoRegions(), vfs.NewMem())
	defer closeMachine(t, m)
	e := ownership.EpochOf(1, 1)
	c := &Own{Change: ownership.Command{Kind: ownership.Append, Write: ownership.Write{Epoch: e, Prev: ownership.Mark{Epoch: e, Position: 1},
		Last: 4}}, Entries: [][]byte{make([]byte, 100), make([]byte, 100), make([]byte, 100)}}
	if res, ok := m.Apply(1, Encode(c)).(Result); !ok || res.Outcome != Applied || len(res.Entries) != 3 {
		t.Fatalf("%+v", res)
	}
	s, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for limit, want := range map[int]int{1: 1, 250: 2, 1000: 3} {
		if list, err := s.OwnEntries(2, 4, limit); err != nil || len(list) != want || list[0].Position != 2 {
			t.Errorf("within %d bytes: %d entries, %v", limit, len(list), err)
		}
	}
}
