// Package checkpoint keeps a region's state in an object store. On every node an Uploader sends checkpoints of shard
// replicas; on the leader of shard 0 a Keeper decides which replica of each shard uploads, names consistent cuts over all
// shards, and removes what is no longer needed. Fetch brings a cut back. DESIGN.md says why all of it is safe.
package checkpoint
