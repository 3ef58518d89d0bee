// Package ownership decides which region owns a shard, by Raft's rules with regions as members: the epoch is the term, the
// owner is the leader, and positions match by (epoch, position). It decides alone: a State takes an Event and the time, and
// returns the next State and what is to be done, in order. No socket, clock, goroutine or random number is in it, and no
// payload: it knows the shape of the owned log, which entries of which epoch, and who holds how much of it.
//
// What must outlive the node is the Record, kept by the region's own Raft group. It changes by Commands alone, each of
// which is decided again where it is applied. The rest of a State (who answered, leases, timers) lives and dies with one
// leader of that group.
package ownership
