package table

import (
	"math/bits"

	"github.com/zeebo/xxh3"
)

// ShardOf returns which of a deployment's shards, at least one, holds a key of a table: the one that keyspace.ShardOf gives
// for the bytes of both. key is as crdt.Value.AppendKey wrote it. Clients number what they write by shard, so they know it too.
func ShardOf(table [16]byte, key []byte, shards int) uint32 {
	b := append(append(make([]byte, 0, 128), table[:]...), key...)
	hi, _ := bits.Mul64(xxh3.Hash(b), uint64(shards))
	return uint32(hi)
}
