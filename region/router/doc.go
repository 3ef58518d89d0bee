// Package router reaches the leader of any shard of this region from any of its nodes: on this node itself, or over gRPC
// on the node that leads. It also turns the errors of shards and groups into gRPC statuses and back.
package router
