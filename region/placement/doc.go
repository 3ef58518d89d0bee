// Package placement decides which nodes of a region hold the replicas of which shards, and by which single changes of
// membership they come to. It is pure: tables and observations in, tables and steps out.
package placement
