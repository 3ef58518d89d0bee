package group

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/go-hclog"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// partSuffix ends the names of files in the incoming folder that are not whole. Those that are have their checksum for a
// name; such a name is given to nothing else.
const partSuffix = ".part"

// staging takes files of snapshots that a leader sends, into a folder where the snapshot finds them. One transfer is taken
// at a time: a new one ends the one before.
type staging struct {
	fs        vfs.FS
	dir       string
	snapshots *snapshotStore
	logger    hclog.Logger

	taking sync.Mutex // held by the transfer that writes
	mu     struct {
		sync.Mutex
		conn   net.Conn // of the newest transfer
		closed bool
	}
	running sync.WaitGroup
}

func newStaging(s *snapshotStore, logger hclog.Logger) *staging {
	return &staging{fs: s.fs, dir: s.incoming, snapshots: s, logger: logger}
}

// take begins a transfer. It doesn't wait for it.
func (s *staging) take(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		conn.Close()
		return
	}
	if s.mu.conn != nil {
		s.mu.conn.Close()
	}
	s.mu.conn = conn
	s.running.Go(func() {
		defer conn.Close()
		s.taking.Lock()
		defer s.taking.Unlock()
		if err := s.receive(conn); err != nil {
			s.logger.Warn("files of a snapshot did not come whole; what came is kept", "error", err)
			refuse(conn, err)
		}
	})
}

// close ends the transfer under way.
func (s *staging) close() {
	s.mu.Lock()
	s.mu.closed = true
	if s.mu.conn != nil {
		s.mu.conn.Close()
	}
	s.mu.Unlock()
	s.running.Wait()
}

// refuse tells the leader why, where it still listens.
func refuse(conn net.Conn, err error) {
	why := err.Error()
	why = why[:min(len(why), maxRefusal)]
	answer := binary.BigEndian.AppendUint16([]byte{refusedTables}, uint16(len(why)))
	_, _ = conn.Write(append(answer, why...)) // it may be gone
}

// receive takes what one connection brings.
func (s *staging) receive(conn net.Conn) error {
	from := bufio.NewReaderSize(timedReader{conn}, 64<<10)
	files, err := readOffer(from)
	if err != nil {
		return err
	}
	if err := s.fs.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	if err := s.clear(files); err != nil {
		return err
	}
	if err := s.reuse(files); err != nil {
		return err
	}
	var answer []byte
	need := make([]int64, len(files))
	asked := map[digest]bool{} // a file may be there under two names
	for i, f := range files {
		if need[i] = f.Size; !asked[f.Sum] {
			if need[i], err = s.have(f); err != nil {
				return err
			}
		}
		asked[f.Sum] = true
		answer = binary.BigEndian.AppendUint64(append(answer, takenTables), uint64(need[i]))
	}
	if _, err := conn.Write(answer); err != nil {
		return err
	}
	for i, f := range files {
		if need[i] == f.Size && f.Size > 0 {
			continue
		}
		if err := s.write(from, f, need[i]); err != nil {
			return err
		}
	}
	if err := syncDir(s.fs, s.dir); err != nil {
		return err
	}
	_, err = conn.Write([]byte{takenTables})
	return err
}

// timedReader bounds every wait for bytes.
type timedReader struct{ conn net.Conn }

func (r timedReader) Read(p []byte) (int, error) {
	r.conn.SetDeadline(time.Now().Add(answerWithin))
	return r.conn.Read(p)
}

// readOffer reads a manifest with its length before it.
func readOffer(r io.Reader) ([]snapshotFile, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, fmt.Errorf("read a manifest: %w", err)
	}
	size := binary.BigEndian.Uint32(length[:])
	if size > maxManifest {
		return nil, fmt.Errorf("%w manifest: %d bytes, %d are the most", ErrCorrupt, size, maxManifest)
	}
	rest := io.LimitedReader{R: r, N: int64(size)}
	_, files, err := readManifest(&rest)
	if err == nil && rest.N != 0 {
		err = fmt.Errorf("%w manifest: bytes after its end", ErrCorrupt)
	}
	return files, err
}

func (s *staging) path(f snapshotFile) string { return s.fs.PathJoin(s.dir, f.Sum.String()) }

// clear removes what came for another snapshot.
func (s *staging) clear(files []snapshotFile) error {
	wanted := make(map[string]bool, len(files))
	for _, f := range files {
		wanted[f.Sum.String()] = true
	}
	names, err := s.fs.List(s.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !wanted[strings.TrimSuffix(name, partSuffix)] {
			if err := s.fs.RemoveAll(s.fs.PathJoin(s.dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// reuse links files here that the newest snapshot of this member holds, once they are found to be what it says.
func (s *staging) reuse(files []snapshotFile) error {
	newest, _, err := s.snapshots.newest()
	if err != nil {
		return err
	}
	held := make(map[digest]string, len(newest.Files))
	for _, f := range newest.Files {
		held[f.Sum] = s.fs.PathJoin(s.snapshots.dir, newest.Raft.ID, stateFolder, f.Name)
	}
	for _, f := range files {
		from, ok := held[f.Sum]
		if _, err := s.fs.Stat(s.path(f)); !ok || err == nil {
			continue
		}
		if sum, err := sumFile(s.fs, from); err != nil || sum != f.Sum {
			continue // removed meanwhile, or damaged: it is sent
		}
		if err := s.fs.Link(from, s.path(f)); err != nil {
			s.logger.Debug("a file that is here is sent all the same", "file", from, "error", err)
		}
	}
	return nil
}

// have returns how many bytes of a file are here.
func (s *staging) have(f snapshotFile) (int64, error) {
	if info, err := s.fs.Stat(s.path(f)); err == nil {
		if info.Size() == f.Size {
			return f.Size, nil
		}
		if err := s.fs.Remove(s.path(f)); err != nil {
			return 0, err
		}
	}
	info, err := s.fs.Stat(s.path(f) + partSuffix)
	if err != nil {
		return 0, nil // none of it
	}
	// At least one byte is sent, so that what is here is looked at.
	return min(info.Size(), max(f.Size-1, 0)), nil
}

// write takes the rest of a file, and gives it its name when it has its checksum.
func (s *staging) write(from io.Reader, f snapshotFile, at int64) error {
	part := s.path(f) + partSuffix
	file, err := s.openPart(part, at)
	if err != nil {
		return err
	}
	sum := newSum()
	err = func() error {
		if at > 0 {
			if _, err := io.Copy(sum, io.NewSectionReader(file, 0, at)); err != nil {
				return err
			}
		}
		buf := make([]byte, chunkSize)
		for ; at < f.Size; at += int64(len(buf)) {
			buf = buf[:min(chunkSize, f.Size-at)]
			n, err := io.ReadFull(from, buf)
			if _, err := file.WriteAt(buf[:n], at); err != nil { // what came is kept
				return err
			}
			if err != nil {
				return noEOF(err)
			}
			sum.Write(buf)
		}
		return file.Sync()
	}()
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("receive %s: %w", f.Name, err)
	}
	if sum.digest() != f.Sum && !mutant.On("table-unchecked") {
		err := fmt.Errorf("%w snapshot: %s did not come as it was sent", ErrCorrupt, f.Name)
		return errors.Join(err, s.fs.Remove(part))
	}
	if err := s.fs.Rename(part, s.path(f)); err != nil {
		return fmt.Errorf("receive %s: %w", f.Name, err)
	}
	return nil
}

// openPart opens what is there of a file up to a byte, for more.
func (s *staging) openPart(path string, at int64) (vfs.File, error) {
	if at == 0 {
		f, err := s.fs.Create(path, vfs.WriteCategoryUnspecified) // shorter than what may be there
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			return nil, err
		}
	}
	return s.fs.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
}

// sum computes a digest.
type sum struct{ hash.Hash }

func newSum() sum { return sum{sha256.New()} }

func (s sum) digest() (d digest) {
	s.Sum(d[:0])
	return d
}
