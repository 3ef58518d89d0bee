// Package table says what the file of a table means, which table an id names, and which shard a key of it lies on. It is
// pure. What the values of tables are is crdt/table's for those that every region writes at once.
package table
