package limit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// lookEvery is how often a Disk is looked at.
	lookEvery = 250 * time.Millisecond
	// diskWait is what those who are refused for want of room are told.
	diskWait = 2 * time.Second
	// defaultFloor and defaultPart bound the room that is kept free by default: whichever is less.
	defaultFloor = 1 << 30
	defaultPart  = 10
)

// Space is the room of a file system in bytes: what there is, and what may still be used.
type Space struct{ Total, Free uint64 }

// Disk keeps some of a file system free: there must be room left for what makes room, and for the log of what was promised.
// It is safe for any goroutine.
type Disk struct {
	path   string
	floor  uint64 // as configured; 0: by default
	stat   func(path string) (Space, error)
	logger hclog.Logger

	mu      sync.Mutex
	space   Space
	short   bool
	refused uint64
}

// NewDisk returns a Disk that keeps floor bytes free where path lies; 0 keeps 1 GiB, or a tenth of the file system where
// that is less. stat is StatFS, or of a test.
func NewDisk(path string, floor uint64, stat func(string) (Space, error), logger hclog.Logger) (*Disk, error) {
	d := &Disk{path: path, floor: floor, stat: stat, logger: logger}
	s, err := stat(path)
	if err != nil {
		return nil, fmt.Errorf("free space of %s: %w", path, err)
	}
	d.note(s)
	return d, nil
}

// Run looks at the disk until ctx ends. While a look hangs, the last one counts.
func (d *Disk) Run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s, err := d.stat(d.path); err == nil {
			d.note(s)
		}
	}
}

func (d *Disk) note(s Space) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.space = s
	floor := d.floorLocked()
	switch {
	case !d.short && s.Free < floor:
		d.short = true
		d.logger.Error("the disk is nearly full: new writes are refused until there is room", "path", d.path,
			"free", s.Free, "min_free", floor)
	case d.short && s.Free >= floor+floor/16: // so that it does not flap
		d.short = false
		d.logger.Info("the disk has room again: writes are taken", "path", d.path, "free", s.Free, "min_free", floor)
	}
}

func (d *Disk) floorLocked() uint64 {
	if d.floor > 0 {
		return d.floor
	}
	return min(defaultFloor, d.space.Total/defaultPart)
}

// Room fails with *Exhausted while less is free than is to be kept.
func (d *Disk) Room() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.short {
		return nil
	}
	d.refused++
	return &Exhausted{"disk: " + lacking(d.space.Free, d.floorLocked()), diskWait}
}

func lacking(free, floor uint64) string {
	return fmt.Sprintf("%d bytes are free, %d are kept (store.min_free)", free, floor)
}

// Shortage is a node whose disk has less room than is to be kept.
type Shortage struct {
	Node        string
	Free, Floor uint64 // bytes
}

// Majority fails with *Exhausted where so many of a group's voters are short that those with room are no majority. A
// minority that is short stops nobody: what is acknowledged is on disks that have room, and the others can be cleared,
// filled up and caught up later. It does not look at this node's own disk.
func (d *Disk) Majority(voters []string, short []Shortage) error {
	var who []string
	for _, s := range short {
		if slices.Contains(voters, s.Node) {
			who = append(who, s.Node+": "+lacking(s.Free, s.Floor))
		}
	}
	if len(voters)-len(who) > len(voters)/2 || len(voters) == 0 {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused++
	slices.Sort(who)
	what := fmt.Sprintf("disks of %d of %d nodes: %s", len(who), len(voters), strings.Join(who, "; "))
	return &Exhausted{what, diskWait}
}

// State returns the bytes that were free when last looked at, those that are kept free, and whether Room fails.
func (d *Disk) State() (free, floor uint64, short bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.space.Free, d.floorLocked(), d.short
}

// Floor returns how many bytes are kept free.
func (d *Disk) Floor() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return int64(d.floorLocked())
}

// Free returns how many bytes were free when last looked at.
func (d *Disk) Free() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return int64(d.space.Free)
}

// Refused returns how often Room and Majority have failed.
func (d *Disk) Refused() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refused
}
