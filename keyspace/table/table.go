package table

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/watershed-db/watershed/crdt/table"
	"github.com/watershed-db/watershed/keyspace"
)

const (
	// MaxFileBytes bounds a table's file.
	MaxFileBytes = 64 << 10
	// MaxName bounds a table's name, in bytes.
	MaxName = 63
	// MaxValueBytes bounds what a table's file may allow a value.
	MaxValueBytes = 256 << 10
	// MaxKey bounds an encoded key of a table, in bytes.
	MaxKey = 4 << 10
)

// defaultValueBytes bounds a value where the file says nothing.
const defaultValueBytes = 64 << 10

// Type is what the values of a table are, and who writes them. Its number is stored and never changes its meaning; those of
// types that every region writes at once are crdt/table's.
type Type uint8

// The types of tables.
const (
	Counter  = Type(table.TypeCounter)
	UpDown   = Type(table.TypeUpDown)
	Register = Type(table.TypeRegister)
	Set      = Type(table.TypeSet)
	LWWSet   = Type(table.TypeLWWSet)
	Owned    = Type(16) // one region decides
)

// typeNames are the names of types as a file writes them.
var typeNames = []string{"owned", "counter", "updown", "register", "set", "lww-set"}

func parseType(name string) (Type, bool) {
	if name == "owned" {
		return Owned, true
	}
	t, ok := table.ParseType(name)
	return Type(t), ok
}

// String returns the type's name in a file.
func (t Type) String() string {
	if t == Owned {
		return "owned"
	}
	return table.Type(t).String()
}

// Valid reports whether there is such a type.
func (t Type) Valid() bool { return t == Owned || t >= Counter && t <= LWWSet }

// CRDT returns the type of values that every region writes at once, and whether the table has such.
func (t Type) CRDT() (table.Type, bool) { return table.Type(t), t.Valid() && t != Owned }

// Durability says when a write to an owned table is acknowledged. Its number is stored.
type Durability uint8

// The durabilities of owned tables.
const (
	Quorum Durability = 1 // held by so many regions that no takeover loses it
	Region Durability = 2 // held by the owner region; what a takeover then lacks is in the divergence ledger
)

// String returns the durability's name in a file, "" for none.
func (d Durability) String() string {
	switch d {
	case Quorum:
		return "quorum"
	case Region:
		return "region"
	}
	return ""
}

// Def is what a table's file says, with its defaults. It is comparable.
type Def struct {
	Name       string
	Type       Type
	Durability Durability // of an owned table, else 0
	TTL        int64      // of an owned table: ms after the last put at which a value goes; 0: never
	MaxBytes   int        // of a value: as it was put; of types that every region writes at once as it is stored
}

// Check fails where no file says d.
func (d Def) Check() error {
	switch {
	case !tableName.MatchString(d.Name):
		return fmt.Errorf("a table is named %q", d.Name)
	case !d.Type.Valid():
		return fmt.Errorf("table %s: type %d", d.Name, d.Type)
	case d.Type == Owned && d.Durability.String() == "", d.Type != Owned && d.Durability != 0:
		return fmt.Errorf("table %s: durability %d of type %s", d.Name, d.Durability, d.Type)
	case d.TTL != 0 && (d.Type != Owned || d.TTL < minTTL || d.TTL > maxTTL):
		return fmt.Errorf("table %s: a ttl of %d ms in type %s", d.Name, d.TTL, d.Type)
	case d.MaxBytes < 1 || d.MaxBytes > MaxValueBytes:
		return fmt.Errorf("table %s: values of %d bytes", d.Name, d.MaxBytes)
	}
	return nil
}

// items returns everything that can change what a write or a read of the table gives.
func (d Def) items() [4][2]string {
	return [...][2]string{{"type", d.Type.String()}, {"durability", d.Durability.String()}, {"ttl", fmt.Sprint(d.TTL)},
		{"value.max_bytes", fmt.Sprint(d.MaxBytes)}}
}

// Meaning returns the hash of what the file means: of all but the table's name, comments and spelling.
func (d Def) Meaning() [32]byte {
	h := sha256.New()
	fmt.Fprintln(h, "watershed table 1")
	for _, it := range d.items() {
		fmt.Fprintf(h, "%q %q\n", it[0], it[1])
	}
	return [32]byte(h.Sum(nil))
}

// Diff names what differs in the meaning of two tables, in the order of a file.
func (d Def) Diff(other Def) (names []string) {
	theirs := other.items()
	for i, it := range d.items() {
		if it != theirs[i] {
			names = append(names, it[0])
		}
	}
	return names
}

// ID names a table for ever: the (epoch, position) of the registry entry that made it, big-endian (rules A10). A table that
// was dropped and made again is another one. It is comparable.
type ID [16]byte

// IDOf returns the id of the table that the registry entry at (epoch, position) made.
func IDOf(epoch, position uint64) (id ID) {
	binary.BigEndian.PutUint64(id[:8], epoch)
	binary.BigEndian.PutUint64(id[8:], position)
	return id
}

// Position returns the position of the registry entry that made the table.
func (id ID) Position() uint64 { return binary.BigEndian.Uint64(id[8:]) }

// String returns the id for messages.
func (id ID) String() string {
	return fmt.Sprintf("%d.%d", binary.BigEndian.Uint64(id[:8]), id.Position())
}

// ShardOf returns the shard that holds a key of a table, given as crdt.Value.AppendKey wrote it, among shards of them.
func ShardOf(id ID, key []byte, shards int) keyspace.ShardID {
	return keyspace.ShardID(table.ShardOf(id, key, shards))
}
