//go:build watershed_next

package shard

// This file makes the build after this one, for tests of upgrades: it knows one more format, which has one more kind of
// command, without effect.

// Format is the highest format that this build knows, see ErrNewer.
const Format = 2

// KindNext is a command of format 2.
const KindNext = kindEnd

// Kinds is one above the greatest kind of command.
const Kinds = KindNext + 1

// format is the first one that has the kind, as this build writes it. It stands behind the kind in the encoding.
func (k Kind) format() byte {
	if k == KindNext {
		return 2
	}
	return 1
}

// Next is a command that builds of format 1 do not know. It changes nothing.
type Next struct{}

func (*Next) kind() Kind { return KindNext }

func (*Next) appendBody(b []byte) []byte { return b }

func (*Next) readBody(*reader) {}

// First lists the commands that a shard is given once when a format comes into force.
func First(format uint32) []Command {
	if format == 2 {
		return []Command{&Next{}}
	}
	return nil
}

func blankNext(k Kind) Command {
	if k == KindNext {
		return &Next{}
	}
	return nil
}

func (a *applier) dispatchNext(c Command) (known bool) {
	if _, known = c.(*Next); known {
		a.end(Applied, "")
	}
	return known
}
