// Package probe finds out within a few hundred milliseconds that a node of the region no longer serves, so that Raft's
// heartbeats can be slow and cheap: a node sends one small datagram to every other every 50 ms, for all groups together,
// where Raft would send one a group.
//
// Beside the probes goes, twice a second, what each node has free on its disk (Room). It is a datagram of its own so that
// builds which don't know it go on understanding the probes.
//
// Only the timing of elections depends on it. A survivor is told to ask for votes at once, as it is told when leadership is
// handed on; votes, terms and logs are checked as ever, and all that is given up is the followers' loyalty to a leader
// that they heard from lately. Where datagrams don't get through nobody counts as dead, and Raft's own timeouts apply.
package probe
