// Package shard is the state machine of a shard: commands in, logical writes and a result out. Its decisions are pure
// functions of (state, command): no clock, no goroutine, no randomness, no map order. Time enters only as a field of a
// command.
//
// A shard's aggregate state is a function of its points and its horizon (rules A1 to A9). Beside it stands the clock
// part (idle sources, unreachable regions, watermarks) and the outbox: replicated, so that a new leader goes on where
// the last one stood, but never joined with another region's or compared with it.
//
// Machine is the shell around the decisions: it owns the store, hands the writes of each command over in one batch with
// its index, and gives readers consistent snapshots.
package shard
