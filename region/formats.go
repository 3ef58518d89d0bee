package region

import (
	"maps"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/region/checkpoint"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/peer"
	"github.com/watershed-db/watershed/region/placement"
	"github.com/watershed-db/watershed/region/probe"
	"github.com/watershed-db/watershed/region/router"
	"github.com/watershed-db/watershed/region/shard"
)

// Formats returns the versions of everything that a node writes to disks, stores and connections, by name. Each room says
// its own; docs/upgrade.md describes them.
func Formats() map[string]int {
	all := map[string]int{
		"data folder": FolderVersion, "checkpoint": checkpoint.FormatVersion, "placement": placement.Version, "probe": probe.Version,
		"room": probe.RoomVersion, "addresses": AddressesVersion,
		"messages between nodes": router.Version, "messages between regions": peer.Version,
	}
	for _, of := range []map[string]int{crdt.Formats(), keyspace.Formats(), group.Formats(), shard.Formats()} {
		maps.Copy(all, of)
	}
	return all
}
