// Package owned is what the entries of an owned log do: the rows of tables, the sessions that make each write count once,
// what rolls an entry back, and the ledger of what was cut off. It holds all of it as small values below one prefix, reads
// and writes them by an interface, and decides nothing about who owns what: that is failover/ownership, whose Record moves
// in the same write. No clock is in it: time comes with the entries.
package owned
