// Package table holds the values of CRDT tables: counters, registers and sets that every region writes at once, the
// operations on them, and what a copy of a shard must know so that each operation counts once. It is pure: no I/O, no
// clock, no randomness; times are milliseconds since 1970-01-01 UTC and come in as arguments.
//
// An operation has the id (session, sequence) that its client gave it, and holds all that its effect depends on. So a
// retry is the same operation, in whichever region it lands, and a value is a function of the set of operations that it
// holds. DESIGN.md says what sessions owe for that.
package table
