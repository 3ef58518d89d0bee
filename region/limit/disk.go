package limit

import (
	"context"
	"fmt"
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
	return &Exhausted{fmt.Sprintf("disk: %d bytes are free, %d are kept (store.min_free)", d.space.Free, d.floorLocked()), diskWait}
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

// Refused returns how often Room has failed.
func (d *Disk) Refused() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.refused
}
