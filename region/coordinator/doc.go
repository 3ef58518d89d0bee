// Package coordinator decides, in the leader of a region's shard 0, what the region works on: which generations its
// shards know, which sources they have and where those begin, and which worker reads which source. Only the first points
// are decisions that must be kept (rules A2); the rest is best effort and can be made again by the next leader.
package coordinator
