package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

var (
	// ErrDamaged marks what an object store holds and can't have been written so.
	ErrDamaged = errors.New("is damaged")
	// ErrVersion marks what a newer version of Watershed has written.
	ErrVersion = errors.New("was written by a newer version of watershed")
)

// File is a file of a shard's checkpoint.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // in hexadecimal; names the object that holds it
}

// Manifest is a shard's checkpoint. Its number rises by one from each to the next, whoever writes it.
type Manifest struct {
	Version int       `json:"version"`
	Number  uint64    `json:"number"`
	Shard   int       `json:"shard"`
	Shards  int       `json:"shards"`
	Index   uint64    `json:"index"` // the last command in it
	Chain   string    `json:"chain"` // the hash chain there, in hexadecimal
	Member  uint16    `json:"member"`
	Term    uint64    `json:"term"` // of the uploader
	Node    string    `json:"node"`
	At      time.Time `json:"at"` // by that node's clock
	Files   []File    `json:"files"`
}

// Bytes returns the sum of the files' sizes.
func (m *Manifest) Bytes() (n int64) {
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

// Part is a shard's part in a cut.
type Part struct {
	Shard  int    `json:"shard"`
	Number uint64 `json:"number"` // of its manifest
	SHA256 string `json:"sha256"` // of its manifest
	Index  uint64 `json:"index"`
	Bytes  int64  `json:"bytes"`
}

// Cut is a consistent checkpoint of a region: one of each shard. Its ID rises by one from each to the next.
type Cut struct {
	Version    int       `json:"version"`
	ID         uint64    `json:"id"`
	Name       string    `json:"name,omitempty"` // of a savepoint
	Deployment string    `json:"deployment"`
	Region     string    `json:"region"`
	Member     uint16    `json:"member"`  // of the region, when it was made (rules A12)
	Regions    []string  `json:"regions"` // of the deployment, sorted
	At         time.Time `json:"at"`
	Parts      []Part    `json:"parts"` // by shard
}

// Bytes returns the sum of the files' sizes over all shards.
func (c *Cut) Bytes() (n int64) {
	for _, p := range c.Parts {
		n += p.Bytes
	}
	return n
}

// identity says whose prefix it is. It is written once.
type identity struct {
	Version    int    `json:"version"`
	Deployment string `json:"deployment"`
	Shards     int    `json:"shards"`
}

// regionIdentity says which incarnation of a region writes below it. A restored one has a higher member number, and
// replaces the one before it.
type regionIdentity struct {
	Version int    `json:"version"`
	Region  string `json:"region"`
	Member  uint16 `json:"member"`
	Lineage string `json:"lineage"` // random: two regions of one name and number differ in it
}

// uploaders says which node uploads which shard. Each change raises the term of what it changes.
type uploaders struct {
	Version int        `json:"version"`
	Shards  []uploader `json:"shards"`
}

type uploader struct {
	Node string `json:"node"`
	Term uint64 `json:"term"`
}

// pin says which cut an incarnation of a region begins with: on all of its nodes the same.
type pin struct {
	Version int    `json:"version"`
	Member  uint16 `json:"member"`
	Cut     string `json:"cut"` // key of the cut
	SHA256  string `json:"sha256"`
}

func sumOf(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func isSum(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size
}

func encode(v any) []byte {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		panic("checkpoint: encode: " + err.Error()) // plain structs alone
	}
	return append(b, '\n')
}

// decode reads v, which has a version, from what encode made.
func decode(b []byte, v any) error {
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(b, &head); err != nil || head.Version < 1 {
		return fmt.Errorf("%w: no version", ErrDamaged)
	}
	if head.Version > FormatVersion {
		return fmt.Errorf("%w: its format is %d, this one knows up to %d", ErrVersion, head.Version, FormatVersion)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

func decodeManifest(b []byte) (*Manifest, error) {
	m := new(Manifest)
	if err := decode(b, m); err != nil {
		return nil, err
	}
	if m.Number == 0 || m.Shard < 0 || m.Shard >= m.Shards || m.Shards > maxShards || len(m.Files) > maxFiles {
		return nil, fmt.Errorf("%w: number %d, shard %d of %d, %d files", ErrDamaged, m.Number, m.Shard, m.Shards, len(m.Files))
	}
	seen := map[string]bool{}
	for _, f := range m.Files {
		switch {
		case !fs.ValidPath(f.Name) || f.Name == "." || !filepath.IsLocal(filepath.FromSlash(f.Name)) || len(f.Name) > maxName:
			return nil, fmt.Errorf("%w: it has a file %.100q", ErrDamaged, f.Name)
		case seen[f.Name] || f.Size < 0 || !isSum(f.SHA256):
			return nil, fmt.Errorf("%w: its file %.100q is there twice, or has no size or checksum", ErrDamaged, f.Name)
		}
		seen[f.Name] = true
	}
	return m, nil
}

func decodeCut(b []byte) (*Cut, error) {
	c := new(Cut)
	if err := decode(b, c); err != nil {
		return nil, err
	}
	if c.ID == 0 || len(c.Parts) == 0 || len(c.Parts) > maxShards || c.Name != "" && !ValidName(c.Name) {
		return nil, fmt.Errorf("%w: id %d, name %.100q, %d parts", ErrDamaged, c.ID, c.Name, len(c.Parts))
	}
	for i, p := range c.Parts {
		if p.Shard != i || p.Number == 0 || !isSum(p.SHA256) || p.Bytes < 0 {
			return nil, fmt.Errorf("%w: part %d is of shard %d", ErrDamaged, i, p.Shard)
		}
	}
	return c, nil
}
