// Package owner drives failover/ownership: on each shard's leader it holds the member's state, takes one step at a time, has
// what a step decides logged by the region's group, and carries the messages to and from the other regions. See DESIGN.md.
package owner
