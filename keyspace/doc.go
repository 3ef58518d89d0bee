// Package keyspace says where things go: which shard a key belongs to, which slot a record falls into, how slots are
// keyed on disk, and the Store that holds a shard replica's slots, small values and applied index.
//
// Windows and keys are pure functions. The Store does I/O: see its own comment for goroutines and durability.
package keyspace
