package keyspace

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// DamageError says that what lies on the disk is not what was written. It is ErrCorrupt.
type DamageError struct {
	File string // where it was found, as far as known; else the store's directory
	Err  error
}

// Error names the file.
func (e *DamageError) Error() string { return fmt.Sprintf("%s is damaged: %v", e.File, e.Err) }

func (e *DamageError) Unwrap() error { return e.Err }

// Is makes the error match ErrCorrupt.
func (e *DamageError) Is(target error) bool { return target == ErrCorrupt }

// IsDamage reports whether an error says that stored bytes are not what was written.
func IsDamage(err error) bool { return errors.Is(err, ErrCorrupt) || pebble.IsCorruptionError(err) }

// openDamage sorts what opening a data directory that was in use failed with. Whatever is not the machine's doing is the
// directory's: the database reports a damaged file of its own as a missing one, a malformed one or a wrong one.
func openDamage(dir string, err error) error {
	var damage *DamageError
	if err == nil || errors.As(err, &damage) || errors.Is(err, ErrFormat) || vfs.IsNoSpaceError(err) ||
		errors.Is(err, fs.ErrPermission) {
		return err
	}
	var number syscall.Errno
	if errors.As(err, &number) && number != syscall.ENOENT && number != syscall.EIO {
		return err
	}
	return &DamageError{File: dir, Err: err}
}
