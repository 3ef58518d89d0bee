// Package group runs the Raft groups of a node, one per shard: the log and stable store and the listener that they share,
// proposals and linearizable reads, snapshots, and the loop that drives a shard's Machine. It knows nothing of what the
// commands mean.
package group
