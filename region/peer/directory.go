package peer

import (
	"maps"
	"net"
	"slices"
	"sync"

	"github.com/watershed-db/watershed/crdt"
)

const (
	// MaxLearned bounds the addresses that are learned of one region.
	MaxLearned = 64
	// maxAddress bounds one address in bytes: a name as DNS allows it, and a port.
	maxAddress = 264
)

// Directory knows where the nodes of other regions are dialed: at the configured addresses, which stay, and at those that
// the regions tell. Of the latter only such are used as have answered as a node of their region, so that addresses which
// don't lead there from here cost nothing. It is safe for any goroutine.
type Directory struct {
	mu      sync.Mutex
	regions map[crdt.RegionID]*entries
}

// entries are the addresses of one region.
type entries struct {
	seeds    []string // as configured
	revision uint64   // of the list in told
	told     []string // at most MaxLearned
	proven   map[string]bool
	first    string // has answered last
}

// NewDirectory returns one of the regions but Self, with what is configured.
func NewDirectory(id Identity) *Directory {
	d := &Directory{regions: map[crdt.RegionID]*entries{}}
	for _, m := range id.Members {
		if m.Region != id.Self {
			d.regions[m.Region] = &entries{seeds: slices.Clone(m.Addresses), proven: map[string]bool{}}
		}
	}
	return d
}

// Regions returns the regions that it knows of, in order.
func (d *Directory) Regions() []crdt.RegionID { return slices.Sorted(maps.Keys(d.regions)) }

// Addresses returns where to dial a region, in the order to be tried: the one that answered last, those that have
// answered, the configured ones.
func (d *Directory) Addresses(region crdt.RegionID) []string {
	e := d.regions[region]
	if e == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	add := func(a string) {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	if e.first != "" {
		add(e.first)
	}
	for _, a := range e.told {
		if e.proven[a] {
			add(a)
		}
	}
	for _, a := range e.seeds {
		add(a)
	}
	return out
}

// Learned returns the addresses that a region told and that have answered.
func (d *Directory) Learned(region crdt.RegionID) []string { return d.toldAnd(region, true) }

// Unproven returns the addresses that a region told and that have not answered yet.
func (d *Directory) Unproven(region crdt.RegionID) []string { return d.toldAnd(region, false) }

func (d *Directory) toldAnd(region crdt.RegionID, proven bool) (out []string) {
	e := d.regions[region]
	if e == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range e.told {
		if e.proven[a] == proven {
			out = append(out, a)
		}
	}
	return out
}

// Tell takes the addresses that a node of a region told, at most MaxLearned of them, and returns those that are to be
// dialed no more. A list that is older than the one known, or has nothing in it, changes nothing.
func (d *Directory) Tell(region crdt.RegionID, revision uint64, list []string) (gone []string) {
	e := d.regions[region]
	if e == nil {
		return nil
	}
	var told []string
	for _, a := range list {
		if len(told) < MaxLearned && isAddress(a) && !slices.Contains(told, a) {
			told = append(told, a)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if revision < e.revision || len(told) == 0 {
		return nil
	}
	for _, a := range e.told {
		if slices.Contains(told, a) {
			continue
		}
		if e.proven[a] && !slices.Contains(e.seeds, a) { // another one was never dialed for its region
			gone = append(gone, a)
		}
		delete(e.proven, a)
	}
	e.revision, e.told = revision, told
	if slices.Contains(gone, e.first) {
		e.first = ""
	}
	return gone
}

// Proven notes that an address which a region told has answered before.
func (d *Directory) Proven(region crdt.RegionID, address string) {
	e := d.regions[region]
	if e == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if slices.Contains(e.told, address) {
		e.proven[address] = true
	}
}

// Answered notes that a node of the region has answered at an address.
func (d *Directory) Answered(region crdt.RegionID, address string) {
	e := d.regions[region]
	if e == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	told := slices.Contains(e.told, address)
	if told {
		e.proven[address] = true
	}
	if told || slices.Contains(e.seeds, address) {
		e.first = address
	}
}

func isAddress(a string) bool {
	host, port, err := net.SplitHostPort(a)
	return err == nil && host != "" && port != "" && len(a) <= maxAddress
}
