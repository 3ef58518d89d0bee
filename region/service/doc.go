// Package service is what a node shows to others: the gRPC services for clients, for workers and for nodes of the same
// region, and the pages of its HTTP port. Reads are merged here over the shards; everything that is decided is decided
// elsewhere.
package service
