package upkeep

import (
	"time"

	"github.com/watershed-db/watershed/region/shard"
)

// SessionLife is how long the shard takes operations of a client's session on tables that every region writes at once: longer
// than clients use one, so that they can try again what is pending.
const SessionLife = 2 * time.Hour

const (
	closeEvery = time.Minute // how far apart old sessions are ended
	floorEvery = time.Second // how far apart the floor rises
	mergeBytes = 256 << 10   // about how much of a copy that was taken is merged at once
)

// tables has the shard begin to write under the region's number once it knows of a table that every region writes at once,
// ends old sessions, raises the floor, and merges what was taken of another region.
func (d *Decider) tables(s *Seen) (list []shard.Command) {
	t := s.State.Tables()
	begun := t.Begun && t.Actor == s.Member
	others := make([]shard.TableStanding, 0, len(s.Peers))
	for i := range s.Peers {
		others = append(others, s.Peers[i].Standing)
	}
	if !begun && s.Member > 0 && takesWrites(s.State) {
		if c := t.BeginAs(s.Member, others); c != nil {
			list = append(list, c)
		}
	}
	if begun && s.Now.Sub(d.floored) >= floorEvery {
		if c := t.NextFloor(others); c != nil {
			d.floored = s.Now
			list = append(list, c)
		}
	}
	old := s.Now.Add(-SessionLife).UnixMilli()
	if begun && t.Open > 0 && s.Now.Sub(d.closed) >= closeEvery && old > t.Closed {
		d.closed = s.Now
		list = append(list, &shard.TableClose{Actor: t.Actor, Born: old})
	}
	if s.Merge != nil {
		list = append(list, s.Merge)
	}
	return append(list, d.abandonedTables(s)...)
}

// takesWrites reports whether the shard was told of a table that every region writes at once.
func takesWrites(st *shard.State) bool {
	for _, t := range st.Told().Live() {
		if _, ok := t.Def.Type.CRDT(); ok {
			return true
		}
	}
	return false
}

// abandonedTables gives up a copy of tables that nobody fills any more.
func (d *Decider) abandonedTables(s *Seen) []shard.Command {
	x := s.State.Tables().Beside
	if x == nil || x.Adopted || s.Joining {
		d.beside = 0
		return nil
	}
	if d.beside != x.Copy {
		d.beside, d.besideSince = x.Copy, s.Now
	}
	if s.Now.Sub(d.besideSince) < stageAfter {
		return nil
	}
	return []shard.Command{&shard.TableAbandon{Copy: x.Copy}}
}

// nextMerge returns the next step of merging a copy that was taken, nil for none.
func nextMerge(r interface {
	State() *shard.State
	Snapshot() (*shard.Snapshot, error)
}) (*shard.TableMerge, error) {
	if x := r.State().Tables().Beside; x == nil || !x.Adopted {
		return nil, nil
	}
	snap, err := r.Snapshot()
	if err != nil {
		return nil, err
	}
	c, err := snap.NextMerge(mergeBytes)
	if cerr := snap.Close(); err == nil {
		err = cerr
	}
	return c, err
}
