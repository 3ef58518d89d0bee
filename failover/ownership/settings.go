package ownership

import (
	"fmt"
	"time"
)

// Settings is what a member goes by. All regions should agree on them; what safety needs is said at each.
type Settings struct {
	// Lease is for how long a grant binds its grantor, on the grantor's clock.
	Lease time.Duration
	// Margin is by how much less the owner counts on it. Clocks may differ in rate by Margin/Lease in all: with a lease of
	// 1 s and a margin of 20 ms no clock may run faster or slower than true time by more than 1%.
	Margin time.Duration
	// Longest is the longest lease that any region's Settings ever had or will have: what is asked for longer is refused,
	// and a new leader waits for so long before it promises what its predecessor may have promised not to.
	Longest time.Duration
	// ClaimAfter is for how long an owner isn't heard before the first copy in order claims; each next one waits for Stagger
	// more, so that they seldom claim at once.
	ClaimAfter, Stagger time.Duration
	// Alone is for how long a copy isn't heard before the others record, with the voters, that they go on without it.
	Alone time.Duration
	// Flip is for how long an owner tries to hand over before it goes back.
	Flip time.Duration
	// Resend is for how long an acknowledgement is awaited before entries are sent again: more than a round trip.
	Resend time.Duration
	// Batch is how many entries one message carries at most.
	Batch Position
	// Unconfirmed is how many entries may wait to be confirmed before new ones are refused. Their payload has a bound of
	// its own, where it is kept.
	Unconfirmed Position
	// Span is how many entries are kept for members that lack them. Past it they are sent the state.
	Span Position
	// Lag is by how many entries a region may be behind and still be flipped to.
	Lag Position
}

// Default returns settings with which a takeover takes about two seconds.
func Default() Settings {
	return Settings{
		Lease: time.Second, Margin: 20 * time.Millisecond, Longest: 2 * time.Second,
		ClaimAfter: 1200 * time.Millisecond, Stagger: 300 * time.Millisecond, Alone: 400 * time.Millisecond,
		Flip: 3 * time.Second, Resend: 500 * time.Millisecond, Batch: 1024, Unconfirmed: 1 << 16, Span: 1 << 20, Lag: 1 << 14,
	}
}

// Validate returns what is wrong with the settings, by field.
func (s Settings) Validate() error {
	for _, d := range []struct {
		name string
		d    time.Duration
	}{{"Lease", s.Lease}, {"Margin", s.Margin}, {"ClaimAfter", s.ClaimAfter}, {"Stagger", s.Stagger}, {"Alone", s.Alone},
		{"Flip", s.Flip}, {"Resend", s.Resend}} {
		if d.d <= 0 {
			return fmt.Errorf("settings: %s is %v, and must be above 0", d.name, d.d)
		}
	}
	switch {
	case s.Margin >= s.Lease:
		return fmt.Errorf("settings: Margin is %v, and must be below Lease, %v", s.Margin, s.Lease)
	case s.Longest < s.Lease || s.Longest > MaxLease:
		return fmt.Errorf("settings: Longest is %v, and must be between Lease, %v, and %v", s.Longest, s.Lease, MaxLease)
	case s.Batch == 0 || s.Unconfirmed == 0 || s.Lag == 0:
		return fmt.Errorf("settings: Batch, Unconfirmed and Lag must be above 0")
	case s.Span <= s.Unconfirmed:
		return fmt.Errorf("settings: Span is %d, and must be above Unconfirmed, %d", s.Span, s.Unconfirmed)
	}
	return nil
}

// Bounds on what is decoded and kept.
const (
	MaxMembers = 64
	// MaxRegion bounds the bytes of Member.Region.
	MaxRegion = 255
	// MaxControl bounds the control entries of a Record. Who holds so many claims no more: it takes as many epochs or
	// changes during which nothing was confirmed.
	MaxControl = 4096
	// MaxLease bounds every term of a lease.
	MaxLease = 5 * time.Minute
)
