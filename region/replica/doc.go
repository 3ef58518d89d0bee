// Package replica is one shard on one node: its Raft group and its state machine, put together. What it adds to them is
// typed proposals, reads at a known consistency, tasks that run while the replica leads, and news of what changed.
package replica
