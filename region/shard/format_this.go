//go:build !watershed_next

package shard

// Format is the highest format that this build knows, see ErrNewer.
const Format = 1

// Kinds is one above the greatest kind of command.
const Kinds = kindEnd

// format is the first one that has the kind, as this build writes it. It stands behind the kind in the encoding.
func (Kind) format() byte { return 1 }

// First lists the commands that a shard is given once when a format comes into force: none up to this one.
func First(format uint32) []Command { return nil }

func blankNext(Kind) Command { return nil }

func (a *applier) dispatchNext(Command) (known bool) { return false }
