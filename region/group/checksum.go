package group

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// Every command carries its CRC-32C, big-endian, as its entry's extensions, from the leader that took it through every log
// to where it is applied: whatever it lay in or went through, it is applied as it was proposed or not at all. Entries of
// builds that gave none have no extensions.
const entryChecksum = 4

func appendChecksum(dst, command []byte) []byte {
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(command, castagnoli))
}

// checkEntry fails with ErrCorrupt where a command is not what was proposed.
func checkEntry(entry *raft.Log) error {
	if len(entry.Extensions) == 0 || mutant.On("entry-unchecked") {
		return nil
	}
	if len(entry.Extensions) != entryChecksum ||
		binary.BigEndian.Uint32(entry.Extensions) != crc32.Checksum(entry.Data, castagnoli) {
		return fmt.Errorf("%w log entry %d of term %d: %d bytes that do not have its checksum", ErrCorrupt,
			entry.Index, entry.Term, len(entry.Data))
	}
	return nil
}
