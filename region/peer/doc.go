// Package peer keeps the copies of a shard in all regions alike (anti-entropy). The leader of a shard pulls from its peer
// in every other region: it tells where it stands, and is sent every Advance that moved a point there, as it was proposed,
// in the order of the peer's log. What it takes it proposes to its own shard; what no delta can bring it, it takes as the
// state of a whole group (rules A5).
//
// A region forwards what it knows of every source, so that two regions which cannot see each other converge through a
// third. Advances are never joined on the way: so every copy of a group stands only where the others stood or will stand,
// and any of them can level it.
package peer
