package ownership

import (
	"fmt"
	"slices"
	"strings"
)

// Role is what a member does.
type Role uint8

// The roles.
const (
	Data    Role = iota // holds the entries, votes, may own
	Witness             // votes, holds control entries alone, never counts as a copy
)

// Member is one member of a Config.
type Member struct {
	ID   MemberID
	Role Role
	// Joining members are sent everything and have no part in any decision.
	Joining bool
	// Behind members vote, but no write waits for them and they may not own: they lack what was confirmed without them.
	Behind bool
	// Region names the region whose incarnation the member is, at most MaxRegion bytes; "" in tests that need no regions.
	Region string
}

// votes says whether the member counts in elections, leases and changes of the configuration.
func (m Member) votes() bool { return !m.Joining }

// copies says whether the member counts for durability, and may own.
func (m Member) copies() bool { return m.Role == Data && !m.Joining && !m.Behind }

// Config is who takes part. It travels in control entries, one change at a time.
type Config struct {
	Number  uint64   // grows by one from one configuration to the next
	Highest MemberID // the highest number ever given to a member
	Forced  bool     // made on an operator's word, without the quorum of the one before
	Members []Member // ascending; never changed in place
	// Gone are the members that were left out by force, the latest last. If they are alive they are told so; and if they
	// were forced as well, the higher epoch stands.
	Gone []MemberID
	// Fork is the last entry before the first of those forces. While somebody is gone, what comes behind it is kept, within
	// Settings.Span: if the other side stands, it goes to the ledger.
	Fork Position
}

// NewConfig returns the first configuration: the given roles, for members 1, 2 and so on.
func NewConfig(roles ...Role) Config {
	c := Config{Number: 1}
	for _, r := range roles {
		c.Highest++
		c.Members = append(c.Members, Member{ID: c.Highest, Role: r})
	}
	return c
}

// Find returns a member of the configuration.
func (c Config) Find(id MemberID) (Member, bool) {
	for _, m := range c.Members {
		if m.ID == id {
			return m, true
		}
	}
	return Member{}, false
}

// Member returns the member of the configuration in force that is the region's, the latest where there are several.
func (c Config) Member(region string) (Member, bool) {
	for _, m := range slices.Backward(c.Members) {
		if m.Region == region {
			return m, true
		}
	}
	return Member{}, false
}

// votes says whether a member is one of the voters.
func (c Config) votes(id MemberID) bool {
	m, ok := c.Find(id)
	return ok && m.votes()
}

// copies says whether a member is one of those that count for durability.
func (c Config) copies(id MemberID) bool {
	m, ok := c.Find(id)
	return ok && m.copies()
}

// count returns how many members are voters and how many are copies.
func (c Config) count() (voters, copies int) {
	for _, m := range c.Members {
		if m.votes() {
			voters++
		}
		if m.copies() {
			copies++
		}
	}
	return voters, copies
}

// Majority is how many voters must agree to an epoch, a lease or a control entry.
func (c Config) Majority() int {
	voters, _ := c.count()
	return voters/2 + 1
}

// Need is how many copies must hold an entry before it counts as confirmed: more than half, and so many that one of them
// is among any majority of the voters that can elect a copy.
func (c Config) Need() int {
	voters, copies := c.count()
	least := max(1, c.Majority()-(voters-copies)) // copies in such a majority
	return max(copies/2, copies-least) + 1
}

// removed says whether a number was given once and is no member any more.
func (c Config) removed(id MemberID) bool {
	_, ok := c.Find(id)
	return !ok && id <= c.Highest
}

// rank is how many copies come before a member, an owner that is missed not counted; the lower asks first.
func (c Config) rank(id, owner MemberID) int {
	n := 0
	for _, m := range c.Members {
		if m.copies() && m.ID < id && m.ID != owner {
			n++
		}
	}
	return n
}

// with returns the next configuration, with one member changed or added.
func (c Config) with(m Member) Config {
	next := c.without()
	next.Highest = max(c.Highest, m.ID)
	i, found := slices.BinarySearchFunc(next.Members, m.ID, func(m Member, id MemberID) int { return int(m.ID) - int(id) })
	if found {
		next.Members[i] = m
	} else {
		next.Members = slices.Insert(next.Members, i, m)
	}
	return next
}

// without returns the next configuration, with some members left out.
func (c Config) without(ids ...MemberID) Config {
	next := Config{Number: c.Number + 1, Highest: c.Highest, Gone: c.Gone, Fork: c.Fork}
	for _, m := range c.Members {
		if !slices.Contains(ids, m.ID) {
			next.Members = append(next.Members, m)
		}
	}
	return next
}

// found returns the same configuration without one of those that are gone.
func (c Config) found(id MemberID) Config {
	c.Gone = slices.DeleteFunc(slices.Clone(c.Gone), func(g MemberID) bool { return g == id })
	if len(c.Gone) == 0 {
		c.Gone, c.Fork = nil, 0
	}
	return c
}

// String returns the number and the members, as in "2{1 2behind 3witness}".
func (c Config) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d{", c.Number)
	for i, m := range c.Members {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprint(&b, m.ID)
		if m.Role == Witness {
			b.WriteString("witness")
		}
		if m.Joining {
			b.WriteString("joining")
		}
		if m.Behind {
			b.WriteString("behind")
		}
	}
	b.WriteByte('}')
	if c.Forced {
		b.WriteString("forced")
	}
	if len(c.Gone) > 0 {
		fmt.Fprintf(&b, "gone%v", c.Gone)
	}
	return b.String()
}
