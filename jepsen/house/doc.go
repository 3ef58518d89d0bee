// Package house checks the tree itself: which room may import which, what no room may import, and how long a file and a
// function may be. It holds tests alone.
package house
