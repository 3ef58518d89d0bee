package keyspace

import (
	"math/bits"

	"github.com/zeebo/xxh3"
)

// ShardID numbers a shard of a deployment, from 0. It names a fixed hash range of keys, the same in every region.
type ShardID uint32

// ShardOf returns the shard of an encoded user key among shards of them, which is at least 1 and fixed when the
// deployment is created. Shard i holds the i-th of equal ranges of the key's 64-bit hash.
func ShardOf(key []byte, shards int) ShardID {
	hi, _ := bits.Mul64(xxh3.Hash(key), uint64(shards))
	return ShardID(hi)
}
