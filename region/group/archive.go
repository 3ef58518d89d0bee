package group

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/watershed-db/watershed/keyspace/mutant"
)

// An archive is how a checkpoint travels. Numbers are big-endian, checksums CRC-32C. First its header, which has this
// form in every version:
//
//	offset  size  what
//	0       4     "WSCP"
//	4       1     version
//	5       8     index of the state
//	13      4     number of files
//	17      4     checksum of the above
//
// then each file, in the order of their names, and nothing after the last one. In version 1:
//
//	0       2     length of the name
//	2       8     size of the contents
//	10      n     name, a slash-separated path
//	10+n    m     contents
//	10+n+m  4     checksum of the above
//
// Version 2 is a manifest: in place of the contents stands their SHA-256, and the files themselves came before, see
// tables.go. It is sent to nodes alone that have taken those.
const (
	archiveMagic      = "WSCP"
	archiveWhole      = 1
	archiveManifest   = 2
	archiveVersion    = archiveManifest
	archiveHeader     = 4 + 1 + 8 + 4
	archiveFileHeader = 2 + 8
	archiveChecksum   = 4

	maxArchiveFiles = 1 << 20
	maxArchiveName  = 1 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// packer reads the archive of a folder that no longer changes.
type packer struct {
	fs    vfs.FS
	dir   string
	files []snapshotFile // still to come

	buffered []byte   // framing to be read next
	file     vfs.File // being read, after buffered
	name     string   // of file
	left     int64    // of file
	checksum hash.Hash32
}

// newPacker returns a reader of dir's archive and the bytes that it will yield.
func newPacker(fsys vfs.FS, dir string, index uint64) (*packer, int64, error) {
	files, err := listFiles(fsys, dir)
	if err != nil {
		return nil, 0, err
	}
	p := &packer{fs: fsys, dir: dir, files: files, checksum: crc32.New(castagnoli)}
	size := int64(archiveHeader + archiveChecksum)
	for _, f := range files {
		size += archiveFileHeader + int64(len(f.Name)) + f.Size + archiveChecksum
	}
	p.buffered = appendHeader(nil, archiveWhole, index, len(files))
	return p, size, nil
}

func appendHeader(dst []byte, version byte, index uint64, files int) []byte {
	start := len(dst)
	dst = append(append(dst, archiveMagic...), version)
	dst = binary.BigEndian.AppendUint64(dst, index)
	dst = binary.BigEndian.AppendUint32(dst, uint32(files))
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// appendManifest appends the archive that names files without holding them.
func appendManifest(dst []byte, index uint64, files []snapshotFile) []byte {
	dst = appendHeader(dst, archiveManifest, index, len(files))
	for _, f := range files {
		start := len(dst)
		dst = append(appendFileHeader(dst, f), f.Sum[:]...)
		dst = binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
	}
	return dst
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
			return n, fmt.Errorf("archive %s: %w", p.name, err)
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
	file, err := p.fs.Open(filepath.Join(p.dir, filepath.FromSlash(f.Name)))
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	p.file, p.name, p.left = file, f.Name, f.Size
	p.buffered = appendFileHeader(nil, f)
	p.checksum.Reset()
	p.checksum.Write(p.buffered)
	return nil
}

func appendFileHeader(dst []byte, f snapshotFile) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(f.Name)))
	dst = binary.BigEndian.AppendUint64(dst, uint64(f.Size))
	return append(dst, f.Name...)
}

// Close releases the file being read.
func (p *packer) Close() error {
	if p.file == nil {
		return nil
	}
	return p.file.Close()
}

// unpack puts the files of an archive into dir, which it makes, and syncs them. Those that the archive only names are taken
// from the folder staged, by their checksums. It returns the index of the state, and the files where it knows their
// checksums. An error leaves dir in pieces.
func unpack(fsys vfs.FS, r io.Reader, dir, staged string) (index uint64, files []snapshotFile, err error) {
	version, index, count, err := readHeader(r)
	if err != nil {
		return 0, nil, err
	}
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		return 0, nil, fmt.Errorf("unpack: %w", err)
	}
	for range count {
		f, err := readEntry(r, version, func(f *snapshotFile, contents io.Reader) error {
			return unpackFile(fsys, contents, filepath.Join(dir, filepath.FromSlash(f.Name)), f)
		})
		if err != nil {
			return 0, nil, err
		}
		if version == archiveManifest {
			if err := takeStaged(fsys, staged, dir, f); err != nil {
				return 0, nil, err
			}
			files = append(files, f)
		}
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || (err != nil && err != io.EOF) {
		return 0, nil, fmt.Errorf("%w archive: bytes after its end", ErrCorrupt)
	}
	return index, files, syncTree(fsys, dir)
}

// readManifest reads an archive that holds no files, and nothing after it.
func readManifest(r io.Reader) (index uint64, files []snapshotFile, err error) {
	version, index, count, err := readHeader(r)
	if err != nil {
		return 0, nil, err
	}
	if version != archiveManifest {
		return 0, nil, fmt.Errorf("%w manifest: it is an archive of version %d", ErrCorrupt, version)
	}
	for range count {
		f, err := readEntry(r, version, nil)
		if err != nil {
			return 0, nil, err
		}
		files = append(files, f)
	}
	return index, files, nil
}

func readHeader(r io.Reader) (version byte, index uint64, count uint32, err error) {
	var header [archiveHeader + archiveChecksum]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, 0, 0, fmt.Errorf("read archive: %w", err)
	}
	if string(header[:4]) != archiveMagic ||
		crc32.Checksum(header[:archiveHeader], castagnoli) != binary.BigEndian.Uint32(header[archiveHeader:]) {
		return 0, 0, 0, fmt.Errorf("%w archive header", ErrCorrupt)
	}
	if version = header[4]; version != archiveWhole {
		if err := checkVersion("archive", int(version), archiveVersion); err != nil {
			return 0, 0, 0, err
		}
	}
	if count = binary.BigEndian.Uint32(header[13:]); count > maxArchiveFiles {
		return 0, 0, 0, fmt.Errorf("%w archive: %d files", ErrCorrupt, count)
	}
	return version, binary.BigEndian.Uint64(header[5:]), count, nil
}

// readEntry reads one file's part of an archive, and has take read the contents where the archive holds them.
func readEntry(r io.Reader, version byte, take func(f *snapshotFile, contents io.Reader) error) (f snapshotFile, err error) {
	checksum := crc32.New(castagnoli)
	summed := io.TeeReader(r, checksum)
	var header [archiveFileHeader]byte
	if _, err := io.ReadFull(summed, header[:]); err != nil {
		return f, fmt.Errorf("read archive: %w", noEOF(err))
	}
	length, size := binary.BigEndian.Uint16(header[:]), binary.BigEndian.Uint64(header[2:])
	if length > maxArchiveName || size > 1<<62 {
		return f, fmt.Errorf("%w archive: file of %d bytes, name of %d", ErrCorrupt, size, length)
	}
	raw := make([]byte, length)
	if _, err := io.ReadFull(summed, raw); err != nil {
		return f, fmt.Errorf("read archive: %w", noEOF(err))
	}
	f = snapshotFile{Name: string(raw), Size: int64(size)}
	if err := checkName(f.Name); err != nil {
		return f, err
	}
	if version == archiveManifest {
		_, err = io.ReadFull(summed, f.Sum[:])
		err = noEOF(err)
	} else {
		err = take(&f, summed)
	}
	if err != nil {
		return f, fmt.Errorf("read archive: %w", err)
	}
	var stored [archiveChecksum]byte
	if _, err := io.ReadFull(r, stored[:]); err != nil {
		return f, fmt.Errorf("read archive: %w", noEOF(err))
	}
	if checksum.Sum32() != binary.BigEndian.Uint32(stored[:]) {
		return f, fmt.Errorf("%w archive: checksum of %s", ErrCorrupt, f.Name)
	}
	return f, nil
}

// takeStaged links a file that came before into a snapshot.
func takeStaged(fsys vfs.FS, staged, dir string, f snapshotFile) error {
	from, to := filepath.Join(staged, f.Sum.String()), filepath.Join(dir, filepath.FromSlash(f.Name))
	info, err := fsys.Stat(from)
	if err != nil {
		return fmt.Errorf("%s of a snapshot has not come: %w", f.Name, err)
	}
	if info.Size() != f.Size {
		return fmt.Errorf("%w snapshot: %s has %d bytes, %d came", ErrCorrupt, f.Name, f.Size, info.Size())
	}
	if err := fsys.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	return fsys.Link(from, to)
}

func unpackFile(fsys vfs.FS, contents io.Reader, path string, f *snapshotFile) error {
	if err := fsys.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	if _, err := fsys.Stat(path); err == nil {
		return fmt.Errorf("%w archive: %s twice", ErrCorrupt, f.Name)
	}
	file, err := fsys.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	_, err = io.CopyN(file, contents, f.Size)
	if err = errors.Join(noEOF(err), file.Close()); err != nil {
		return fmt.Errorf("unpack %s: %w", f.Name, err)
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
func syncTree(fsys vfs.FS, dir string) error {
	if mutant.On("cut-before-the-checkpoint-is-on-disk") {
		return nil
	}
	names, err := fsys.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		path := fsys.PathJoin(dir, name)
		info, err := fsys.Stat(path)
		switch {
		case err != nil:
			return err
		case info.IsDir():
			err = syncTree(fsys, path)
		default:
			err = syncFile(fsys, path)
		}
		if err != nil {
			return err
		}
	}
	return syncDir(fsys, dir)
}

func syncFile(fsys vfs.FS, path string) error {
	file, err := fsys.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

func syncDir(fsys vfs.FS, path string) error {
	dir, err := fsys.OpenDir(path)
	if err != nil {
		return err
	}
	if err := errors.Join(dir.Sync(), dir.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}
