// Package carrier carries out what a region has decided on its nodes and replicas: it keeps the placement table in a note of
// shard 0, looks at how the groups stand, and makes the next steps, on the leader of shard 0.
package carrier
