package group

import (
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// An archive is how a checkpoint travels. Version 1, numbers big-endian, checksums CRC-32C. First its header,
// which has this form in every version:
//
//	offset  size  what
//	0       4     "WSCP"
//	4       1     version
//	5       8     index of the state
//	13      4     number of files
//	17      4     checksum of the above
//
// then each file, in the order of their names, and nothing after the last one:
//
//	0       2     length of the name
//	2       8     size of the contents
//	10      n     name, a slash-separated path
//	10+n    m     contents
//	10+n+m  4     checksum of the above
const (
	archiveMagic      = "WSCP"
	archiveVersion    = 1
	archiveHeader     = 4 + 1 + 8 + 4
	archiveFileHeader = 2 + 8
	archiveChecksum   = 4

	maxArchiveFiles = 1 << 20
	maxArchiveName  = 1 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// packer reads the archive of a folder that no longer changes.
type packer struct {
	dir   string
	files []packedFile // still to come

	buffered []byte   // framing to be read next
	file     *os.File // being read, after buffered
	left     int64    // of file
	checksum hash.Hash32
}

type packedFile struct {
	name string // slash-separated, relative to the folder
	size int64
}

// newPacker returns a reader of dir's archive and the bytes that it will yield.
func newPacker(dir string, index uint64) (*packer, int64, error) {
	p := &packer{dir: dir, checksum: crc32.New(castagnoli)}
	size := int64(archiveHeader + archiveChecksum)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if !info.Mode().IsRegular() || len(name) > maxArchiveName {
			return fmt.Errorf("%s can't be archived", path)
		}
		p.files = append(p.files, packedFile{name: name, size: info.Size()})
		size += archiveFileHeader + int64(len(name)) + info.Size() + archiveChecksum
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list files to archive: %w", err)
	}
	if len(p.files) > maxArchiveFiles {
		return nil, 0, fmt.Errorf("%d files are too many to archive", len(p.files))
	}
	header := append([]byte(archiveMagic), archiveVersion)
	header = binary.BigEndian.AppendUint64(header, index)
	header = binary.BigEndian.AppendUint32(header, uint32(len(p.files)))
	p.buffered = binary.BigEndian.AppendUint32(header, crc32.Checksum(header, castagnoli))
	return p, size, nil
}

// Read yields the next bytes of the archive.
func (p *packer) Read(dst []byte) (int, error) {
	for len(p.buffered) == 0 && p.file == nil {
		if len(p.files) == 0 {
			return 0, io.EOF
		}
		if err := p.next(); err != nil {
			return 0, err
		}
	}
	if len(p.buffered) > 0 {
		n := copy(dst, p.buffered)
		p.buffered = p.buffered[n:]
		return n, nil
	}
	if int64(len(dst)) > p.left {
		dst = dst[:p.left]
	}
	var n int
	if len(dst) > 0 {
		var err error
		if n, err = p.file.Read(dst); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return n, fmt.Errorf("archive %s: %w", p.file.Name(), err)
		}
	}
	p.checksum.Write(dst[:n])
	p.left -= int64(n)
	if p.left == 0 {
		p.file.Close()
		p.file = nil
		p.buffered = binary.BigEndian.AppendUint32(nil, p.checksum.Sum32())
	}
	return n, nil
}

func (p *packer) next() error {
	f := p.files[0]
	p.files = p.files[1:]
	file, err := os.Open(filepath.Join(p.dir, filepath.FromSlash(f.name)))
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	p.file, p.left = file, f.size
	p.buffered = appendFileHeader(nil, f)
	p.checksum.Reset()
	p.checksum.Write(p.buffered)
	return nil
}

func appendFileHeader(dst []byte, f packedFile) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(f.name)))
	dst = binary.BigEndian.AppendUint64(dst, uint64(f.size))
	return append(dst, f.name...)
}

// Close releases the file being read.
func (p *packer) Close() error {
	if p.file == nil {
		return nil
	}
	return p.file.Close()
}

// unpack writes the files of an archive into dir, which it makes, and syncs them. It returns the index of the state. An
// error leaves dir in pieces.
func unpack(r io.Reader, dir string) (index uint64, err error) {
	var header [archiveHeader + archiveChecksum]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, fmt.Errorf("read archive: %w", err)
	}
	if string(header[:4]) != archiveMagic ||
		crc32.Checksum(header[:archiveHeader], castagnoli) != binary.BigEndian.Uint32(header[archiveHeader:]) {
		return 0, fmt.Errorf("%w archive header", ErrCorrupt)
	}
	if err := checkVersion("archive", int(header[4]), archiveVersion); err != nil {
		return 0, err
	}
	index = binary.BigEndian.Uint64(header[5:])
	count := binary.BigEndian.Uint32(header[13:])
	if count > maxArchiveFiles {
		return 0, fmt.Errorf("%w archive: %d files", ErrCorrupt, count)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, fmt.Errorf("unpack: %w", err)
	}
	for range count {
		if err := unpackFile(r, dir); err != nil {
			return 0, err
		}
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || (err != nil && err != io.EOF) {
		return 0, fmt.Errorf("%w archive: bytes after its end", ErrCorrupt)
	}
	return index, syncTree(dir)
}

func unpackFile(r io.Reader, dir string) error {
	checksum := crc32.New(castagnoli)
	summed := io.TeeReader(r, checksum)
	var header [archiveFileHeader]byte
	if _, err := io.ReadFull(summed, header[:]); err != nil {
		return fmt.Errorf("read archive: %w", noEOF(err))
	}
	length, size := binary.BigEndian.Uint16(header[:]), binary.BigEndian.Uint64(header[2:])
	if length > maxArchiveName || size > 1<<62 {
		return fmt.Errorf("%w archive: file of %d bytes, name of %d", ErrCorrupt, size, length)
	}
	raw := make([]byte, length)
	if _, err := io.ReadFull(summed, raw); err != nil {
		return fmt.Errorf("read archive: %w", noEOF(err))
	}
	name := string(raw)
	if !fs.ValidPath(name) || name == "." || !filepath.IsLocal(filepath.FromSlash(name)) {
		return fmt.Errorf("%w archive: file is named %q", ErrCorrupt, name)
	}
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	defer file.Close()
	if _, err := io.CopyN(file, summed, int64(size)); err != nil {
		return fmt.Errorf("unpack %s: %w", name, noEOF(err))
	}
	var stored [archiveChecksum]byte
	if _, err := io.ReadFull(r, stored[:]); err != nil {
		return fmt.Errorf("read archive: %w", noEOF(err))
	}
	if checksum.Sum32() != binary.BigEndian.Uint32(stored[:]) {
		return fmt.Errorf("%w archive: checksum of %s", ErrCorrupt, name)
	}
	return nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// syncTree makes every file and folder under dir durable, and dir itself.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncPath(path)
	})
}

func syncPath(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}
