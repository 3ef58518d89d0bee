package crdt

// Slot says where a contribution goes in a shard, within a generation, a group and a copy. Order: time, key, class.
type Slot struct {
	// Time is the horizon at which the slot goes: a window's end; for a slice the end of the last window it serves;
	// for a session's cell its end + gap (rules A8). MaxTime for the global window.
	Time int64
	// Class k of a slice: its records were late for the first k of its windows. 0 elsewhere.
	Class uint16
	// Key is the user key: its values by Value.AppendKey, in declared order.
	Key []byte
}

// Delta is what an Advance adds to one slot.
type Delta struct {
	Slot Slot
	Cell []byte // an encoded Cell
}

// Range moves one source of an Advance.
type Range struct {
	Source Source
	From   Mark
	To     Point
}

// Advance moves sources of one group from points to points and adds what their records between contribute to one
// shard. It is applied whole or not at all. Ranges are in CompareSources order, Deltas in slot order, each slot once.
type Advance struct {
	Generation GenerationID
	Group      RegionID
	Ranges     []Range
	Deltas     []Delta
}

// Install replaces one group of a shard by the staged copy, at or above all its present points (rules A5).
type Install struct {
	Generation GenerationID
	Group      RegionID
	Copy       uint32
	To         Frontier // all sources of the group
	Horizon    int64    // the sender's; the receiver rises to the greater
}
