package ownership

import (
	"fmt"
	"strings"
)

var kindNames = [...]string{"", "pre-claim", "pre-vote", "claim", "vote", "entries", "ack", "state", "handover", "ask", "grant",
	"removed"}

// String returns the kind in a word.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// String returns what matters of the message, for logs and tests: sender and receiver first.
func (m Message) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d->%d %v", m.From, m.To, m.Kind)
	no := func() {
		if !m.OK {
			fmt.Fprintf(&b, " no, promised %v", m.Promised)
		}
	}
	switch m.Kind {
	case PreClaim, Claim, Handover:
		fmt.Fprintf(&b, " %v last %v", m.Epoch, m.Mark)
		if m.Released > 0 {
			fmt.Fprintf(&b, " released %v", m.Released)
		}
	case PreVote, Vote, Grant, Ask:
		fmt.Fprintf(&b, " %v", m.Epoch)
		if m.Kind != Ask {
			no()
		}
	case Entries:
		fmt.Fprintf(&b, " %v", m.Write)
	case Ack:
		fmt.Fprintf(&b, " %v", m.Epoch)
		no()
		if m.Mark.Position > 0 {
			fmt.Fprintf(&b, " at %v", m.Mark)
		}
	case StateAt:
		fmt.Fprintf(&b, " %v at %v", m.Epoch, m.Mark)
	case Removed:
		fmt.Fprintf(&b, " by %d", m.Number)
	}
	return b.String()
}

// String returns the epoch, where the entries go, the control entries among them and what is confirmed.
func (w Write) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v behind %v to %d", w.Epoch, w.Prev, w.Last)
	for _, c := range w.Control {
		fmt.Fprintf(&b, " %v=%v", c.Mark, c.Config)
	}
	fmt.Fprintf(&b, " confirmed %d", w.Confirmed)
	return b.String()
}

// String returns what the command does.
func (c Command) String() string {
	switch c.Kind {
	case Promise:
		return fmt.Sprintf("promise %v", c.Epoch)
	case Append:
		return fmt.Sprintf("append %v", c.Write)
	case Install:
		return fmt.Sprintf("install %v at %v with %v", c.Epoch, c.Mark, c.Control.Config)
	}
	return fmt.Sprintf("command of kind %d", c.Kind)
}

// String returns what happened.
func (n Note) String() string {
	var b strings.Builder
	b.WriteString(n.Kind.String())
	if n.Epoch > 0 {
		fmt.Fprintf(&b, " %v", n.Epoch)
	}
	if n.Released > 0 {
		fmt.Fprintf(&b, " after %v", n.Released)
	}
	if n.Mark.Position > 0 {
		fmt.Fprintf(&b, " at %v", n.Mark)
	}
	if n.Member > 0 {
		fmt.Fprintf(&b, " for %d", n.Member)
	}
	return b.String()
}
