package keyspace

import (
	"errors"
	"fmt"
	"time"
)

// run is the writer: the one goroutine that writes tables to the database.
func (s *Store) run() {
	tick := time.NewTicker(s.opts.MaxAge)
	defer tick.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-s.wake:
		case <-tick.C:
			s.mu.Lock()
			s.freezeLocked()
			s.mu.want = s.mu.applied.index
			s.mu.Unlock()
		}
		for s.writeFrozen() {
		}
	}
}

// writeFrozen writes all frozen tables in one batch, if any is wanted. It reports whether it wrote.
func (s *Store) writeFrozen() bool {
	s.mu.Lock()
	if s.usableLocked() != nil || s.mu.want <= s.mu.written || len(s.mu.frozen) == 0 {
		s.mu.Unlock()
		return false
	}
	tables := s.mu.frozen
	s.mu.writing = len(tables)
	e := s.mu.engine.hold()
	s.mu.Unlock()

	err := errors.Join(e.write(tables), e.release())
	if err != nil {
		s.fail(err)
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.engine == e { // else a restore has taken the tables' place
		for _, t := range tables {
			s.mu.bytes -= t.bytes
		}
		s.mu.frozen, s.mu.writing = s.mu.frozen[len(tables):], 0
		s.mu.written = tables[len(tables)-1].last
		s.mu.batches++
	}
	s.mu.changed.Broadcast()
	return true
}

// writeBehind waits until the database has every command applied before the call, and returns the index of the last.
func (s *Store) writeBehind() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usableLocked(); err != nil {
		return 0, err
	}
	s.freezeLocked()
	index := s.mu.applied.index
	s.wantLocked(index)
	for s.mu.written < index {
		s.mu.changed.Wait()
		if err := s.usableLocked(); err != nil {
			return 0, err
		}
	}
	return index, nil
}

// foldAbove is the number of frozen tables above which a reader folds some.
const foldAbove = 4

// foldFrozen folds neighbouring frozen tables while there are many: a newer one into an older one that is at most twice
// as big, so that every entry is folded few times. Tables that the writer has taken, and big ones, are left alone.
func (s *Store) foldFrozen() {
	if !s.folding.TryLock() {
		return
	}
	defer s.folding.Unlock()
	for {
		older, newer := s.pickFold()
		if older == nil {
			return
		}
		t, err := foldTables(older, newer)
		if err != nil {
			s.fail(fmt.Errorf("fold tables: %w", err))
			return
		}
		if !s.replaceFolded(older, newer, t) {
			return
		}
	}
}

// pickFold returns the newest pair to fold, if there is one.
func (s *Store) pickFold() (older, newer *table) {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := s.mu.frozen[s.mu.writing:]
	if len(open) <= foldAbove {
		return nil, nil
	}
	for i := len(open) - 1; i > 0; i-- {
		a, b := open[i-1], open[i]
		if a.bytes <= 2*b.bytes && a.bytes+b.bytes <= s.opts.TableBytes/8 {
			return a, b
		}
	}
	return nil, nil
}

// replaceFolded puts t in the place of two frozen tables, unless the writer has taken one of them meanwhile.
func (s *Store) replaceFolded(older, newer, t *table) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := s.mu.writing; i+1 < len(s.mu.frozen); i++ {
		if s.mu.frozen[i] != older || s.mu.frozen[i+1] != newer {
			continue
		}
		next := make([]*table, 0, len(s.mu.frozen))
		next = append(append(next, s.mu.frozen[:i]...), t)
		s.mu.frozen = append(next, s.mu.frozen[i+2:]...)
		s.mu.bytes += t.bytes - older.bytes - newer.bytes
		s.mu.folds++
		return true
	}
	return false
}
