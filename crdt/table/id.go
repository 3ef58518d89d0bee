package table

import (
	"cmp"
	"errors"
	"fmt"
)

// Refusals of an operation, none of which changed anything.
var (
	// ErrOperation marks an operation that no copy ever takes: its table has another type, or it is out of bounds.
	ErrOperation = errors.New("operation refused")
	// ErrAhead marks a time too far ahead of the clock that looked at it.
	ErrAhead = errors.New("time too far ahead")
	// ErrExpired marks an operation of a session that takes no more. Whether it was taken while the session lived is not
	// known any longer.
	ErrExpired = errors.New("session expired")
	// ErrFull marks an operation for whose session there is no room: too many are open.
	ErrFull = errors.New("too many sessions")
	// ErrGaps marks an operation of a session that holds too many beyond one that is missing.
	ErrGaps = errors.New("too many gaps")
)

// maxMillis is the latest time that a session or a stamp may have, in the year 10889.
const maxMillis = 1<<48 - 1

// SessionID names a client's session, which numbers its operations on each shard from 1. It is comparable.
type SessionID struct {
	Born  int64  // when a region opened the session, in ms; it sets the end of the session's life
	Nonce uint64 // random, so that no two sessions are one
}

// Compare orders sessions by birth, then nonce.
func (s SessionID) Compare(t SessionID) int {
	if c := cmp.Compare(s.Born, t.Born); c != 0 {
		return c
	}
	return cmp.Compare(s.Nonce, t.Nonce)
}

// String returns the session for messages.
func (s SessionID) String() string { return fmt.Sprintf("%d-%016x", s.Born, s.Nonce) }

// ID names an operation for ever. It is comparable.
type ID struct {
	Session  SessionID
	Sequence uint64 // among the session's operations on the shard, from 1 without gaps
}

// Compare orders operations by session, then sequence.
func (a ID) Compare(b ID) int {
	if c := a.Session.Compare(b.Session); c != 0 {
		return c
	}
	return cmp.Compare(a.Sequence, b.Sequence)
}

// String returns the operation's name for messages.
func (a ID) String() string { return fmt.Sprintf("%s/%d", a.Session, a.Sequence) }

func (a ID) valid() bool {
	return a.Sequence > 0 && a.Session.Born >= 0 && a.Session.Born <= maxMillis
}
