package group

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// storeVersion is that of the log store's keys.
	storeVersion = 1
	// pebbleFormat is the log store's database's own version: raised on purpose only, since older builds can't read a
	// raised one.
	pebbleFormat = pebble.FormatValueSeparation
)

// Formats returns the versions of what this package writes to disks and connections, by name.
func Formats() map[string]int {
	return map[string]int{
		"raft log store": storeVersion, "raft stable store": stableVersion, "raft log entry": logVersion, "raft snapshot": metaVersion, "raft archive": archiveVersion,
		"raft connection": prefaceVersion, "raft log database": int(pebbleFormat),
	}
}

// checkVersion fails with ErrNewer for a version above the one that this build knows, and with ErrCorrupt for one that there
// never was.
func checkVersion(what string, has, known int) error {
	switch {
	case has == known:
		return nil
	case has > known:
		return fmt.Errorf("%w: %s has version %d, this build reads up to %d", ErrNewer, what, has, known)
	default:
		return fmt.Errorf("%w: %s has version %d, this build reads %d", ErrCorrupt, what, has, known)
	}
}

// storeVersionKey is where a store keeps storeVersion. No shard's keys begin with it: their numbers are small.
var storeVersionKey = []byte("\xffversion")

// checkLogStore reads the version of the log store, and writes it where there is none yet.
func checkLogStore(db *pebble.DB) error {
	value, closer, err := db.Get(storeVersionKey)
	if errors.Is(err, pebble.ErrNotFound) {
		return db.Set(storeVersionKey, binary.BigEndian.AppendUint32(nil, storeVersion), pebble.Sync)
	}
	if err != nil {
		return err
	}
	return errors.Join(checkStored(value), closer.Close())
}

func checkStored(value []byte) error {
	if len(value) != 4 {
		return fmt.Errorf("%w version of the log store: %d bytes", ErrCorrupt, len(value))
	}
	return checkVersion("log store", int(binary.BigEndian.Uint32(value)), storeVersion)
}
