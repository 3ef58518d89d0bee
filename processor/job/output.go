package job

import "github.com/watershed-db/watershed/crdt"

// Output is one row as a sink stores it. Rows of one identity (job, key, window) are ordered by (generation, epoch,
// revision, complete) (rules A14): a sink that holds one of them need not take one that ranks below.
type Output struct {
	Job        string
	Generation crdt.GenerationID
	Epoch      uint64 // of the ownership under which it was sent
	Key        []byte // the JSON of the row's key
	Value      []byte // the JSON of the row, or of its retraction
}
