// Package logstore measures what Raft logs can be kept in: raft-boltdb with a file a shard, hashicorp/raft-wal with a folder
// a shard, and one Pebble with a synced WAL for all shards of a node (region/group). It is a module of its own, so that
// raft-wal and what it needs stay out of the product's. run.sh runs it; bench/RESULTS.md has results.
package logstore
