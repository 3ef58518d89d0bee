package checkpoint

import (
	"fmt"
	"strconv"
	"strings"
)

// FormatVersion is the version of everything below a prefix.
const FormatVersion = 1

// Bounds of what is read back.
const (
	maxFiles    = 1 << 16  // in a shard's checkpoint
	maxManifest = 24 << 20 // bytes of a shard's manifest
	maxSmall    = 4 << 20  // bytes of everything else
	maxShards   = 1 << 10
	maxName     = 255 // bytes of a file's name
)

// Keys, relative to the prefix:
//
//	identity.json                                     whose prefix it is
//	REGION/identity.json                              which incarnation of the region writes
//	REGION/uploaders.json                             which node uploads which shard
//	REGION/shards/NNNN/tables/SHA256                  contents of files, by checksum
//	REGION/shards/NNNN/manifests/NUMBER.json          a shard's checkpoint: its files
//	REGION/checkpoints/ID.json                        a cut: a manifest of each shard
//	REGION/savepoints/NAME.json                       a cut that is kept until it is deleted
//	REGION/restores/MEMBER.json                       the cut that a new incarnation begins with
const identityKey = "identity.json"

const suffix = ".json"

// place makes the keys of a region.
type place string

func (p place) identity() string { return string(p) + "/identity.json" }

func (p place) uploaders() string { return string(p) + "/uploaders.json" }

func (p place) shard(n int) string { return fmt.Sprintf("%s/shards/%04d/", p, n) }

func (p place) tables(n int) string { return p.shard(n) + "tables/" }

func (p place) manifests(n int) string { return p.shard(n) + "manifests/" }

func (p place) manifest(n int, number uint64) string {
	return fmt.Sprintf("%s%020d%s", p.manifests(n), number, suffix)
}

func (p place) checkpoints() string { return string(p) + "/checkpoints/" }

func (p place) checkpoint(id uint64) string {
	return fmt.Sprintf("%s%020d%s", p.checkpoints(), id, suffix)
}

func (p place) savepoints() string { return string(p) + "/savepoints/" }

func (p place) savepoint(name string) string { return p.savepoints() + name + suffix }

func (p place) restores() string { return string(p) + "/restores/" }

func (p place) restore(member uint16) string {
	return fmt.Sprintf("%s%05d%s", p.restores(), member, suffix)
}

// numberOf returns the number that a key under prefix is named by.
func numberOf(key, prefix string) (uint64, bool) {
	digits, ok := strings.CutSuffix(strings.TrimPrefix(key, prefix), suffix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil
}

// ValidName says whether a savepoint can have a name: a letter, then letters, digits, dots, dashes and underscores, 63 in
// all at most. A number is a checkpoint's.
func ValidName(name string) bool {
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || (r < '0' || r > '9') && r != '.' && r != '-' && r != '_') {
			return false
		}
	}
	return name != "" && len(name) <= 63 && name != Latest
}

// Latest names the newest checkpoint.
const Latest = "latest"
