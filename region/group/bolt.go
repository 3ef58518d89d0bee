package group

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// The database follows what damaged pages say wherever it leads: it panics, faults, or hands out bytes from anywhere in the
// process, on which the garbage collector then ends it. A file of unknown health is therefore read here, with bounds, and the
// database only opens files that were just written.
//
// The format is that of bbolt (go.etcd.io/bbolt, version 2 of its file; numbers in the byte order of the machine). A page
// begins with
//
//	offset  size  what
//	0       8     its number
//	8       2     its kind: boltBranch, boltLeaf
//	10      2     how many elements follow
//	12      4     how many more pages it takes
//
// An element of a branch is 16 bytes: where its key begins, seen from the element, in 4, the key's length in 4, the number of
// a page below in 8. One of a leaf is 16 bytes too: flags, where its key begins, the key's length, the length of the value
// right behind it, in 4 each. A bucket is a value with the flag boltBucket: the number of its root in 8 bytes and a counter
// in 8; if the root is 0, its only page follows.
//
// The first two pages each have a head, written in turn: the one with the higher number counts.
//
//	offset  size  what
//	16      4     magic
//	20      4     version
//	24      4     size of a page
//	32      8     number of the root of the buckets
//	64      8     number of the transaction
//	72      8     FNV-1a of what stands from 16 on before
const (
	boltPageHead, boltElement, boltBucketHead = 16, 16, 16
	boltBranch, boltLeaf                      = 1, 2
	boltBucket                                = 1

	headAt, headRoot, headNumber, headSum, headSize = boltPageHead, 16, 48, 56, 64

	headMagic, headVersion = 0xED0CDAED, 2
	maxPage                = 1 << 20
	maxBolt                = 256 << 20 // of a file, which is read whole
	maxBoltDepth           = 32
)

// boltFile is a bolt file in memory.
type boltFile struct {
	bytes    []byte
	pageSize uint64
	root     uint64
	seen     map[uint64]bool // pages, each of which has one place in the tree
}

// readBolt hands every record of one bucket to take, which may keep none of what it is given. Whatever the file holds, it
// returns; ErrCorrupt is what can't be read. That every record is found, and as it was written, its checksums must say.
func readBolt(path string, bucket []byte, take func(key, value []byte) error) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > maxBolt {
		return fmt.Errorf("%w: %d bytes, more than %d", ErrCorrupt, info.Size(), maxBolt)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return readBoltBytes(b, bucket, take)
}

func readBoltBytes(b, bucket []byte, take func(key, value []byte) error) error {
	f := &boltFile{bytes: b, seen: map[uint64]bool{}}
	if err := f.readHeads(); err != nil {
		return err
	}
	found := false
	err := f.walk(f.root, 0, func(flags uint32, key, value []byte) error {
		if flags&boltBucket == 0 || string(key) != string(bucket) {
			return nil
		}
		found = true
		return f.walkBucket(value, take)
	})
	if err == nil && !found {
		return fmt.Errorf("%w: it holds nothing", ErrCorrupt)
	}
	return err
}

// readHeads fails where one of the heads is damaged: the database would go on from the other one, and have forgotten the
// last write, or be about to write over it. A crash leaves both whole, for they are smaller than a sector.
func (f *boltFile) readHeads() error {
	first, err := f.readHead(0)
	if err != nil {
		return err
	}
	root, size := f.root, f.pageSize
	second, err := f.readHead(size)
	switch {
	case err != nil:
		return err
	case f.pageSize != size, first != second+1 && second != first+1:
		return fmt.Errorf("%w: its heads have the numbers %d and %d", ErrCorrupt, first, second)
	}
	if first > second {
		f.root = root
	}
	return nil
}

// readHead takes over the head in the page at an offset, and returns its number.
func (f *boltFile) readHead(page uint64) (number uint64, err error) {
	if page+headAt+headSize > uint64(len(f.bytes)) {
		return 0, fmt.Errorf("%w: it ends at a head: %w", ErrCorrupt, io.ErrUnexpectedEOF)
	}
	head, order := f.bytes[page+headAt:][:headSize], binary.NativeEndian
	sum := fnv.New64a()
	sum.Write(head[:headSum])
	f.pageSize, f.root = uint64(order.Uint32(head[8:])), order.Uint64(head[headRoot:])
	if order.Uint32(head) != headMagic || f.pageSize < headAt+headSize || f.pageSize > maxPage || sum.Sum64() != order.Uint64(head[headSum:]) {
		return 0, fmt.Errorf("%w: the head at %d does not have its checksum", ErrCorrupt, page)
	}
	if version := order.Uint32(head[4:]); version != headVersion {
		return 0, fmt.Errorf("%w: a database of version %d, expected %d", ErrCorrupt, version, headVersion)
	}
	return order.Uint64(head[headNumber:]), nil
}

// walkBucket hands on the records of a bucket that is stored as value.
func (f *boltFile) walkBucket(value []byte, take func(key, value []byte) error) error {
	if len(value) < boltBucketHead {
		return fmt.Errorf("%w: a bucket of %d bytes", ErrCorrupt, len(value))
	}
	each := func(flags uint32, key, value []byte) error {
		if flags != 0 {
			return fmt.Errorf("%w: record %q has flags %#x", ErrCorrupt, key, flags)
		}
		return take(key, value)
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return f.walk(root, 0, each)
	}
	kind, elements, err := splitPage(value[boltBucketHead:])
	if err == nil && kind != boltLeaf {
		err = fmt.Errorf("%w: a bucket of kind %#x", ErrCorrupt, kind)
	}
	if err != nil {
		return err
	}
	return eachOfLeaf(elements, value[boltBucketHead+boltPageHead:], each)
}

// walk hands on what the leaves below a page hold.
func (f *boltFile) walk(number uint64, depth int, each func(flags uint32, key, value []byte) error) error {
	page, err := f.page(number, depth)
	if err != nil {
		return err
	}
	kind, elements, err := splitPage(page)
	switch {
	case err != nil:
		return fmt.Errorf("page %d: %w", number, err)
	case kind == boltLeaf:
		return eachOfLeaf(elements, page[boltPageHead:], each)
	case kind != boltBranch:
		return fmt.Errorf("%w: page %d has kind %#x", ErrCorrupt, number, kind)
	}
	for at := range elements {
		below := binary.NativeEndian.Uint64(page[boltPageHead+at*boltElement+8:])
		if err := f.walk(below, depth+1, each); err != nil {
			return err
		}
	}
	return nil
}

// page returns a page of the tree that was not asked for before.
func (f *boltFile) page(number uint64, depth int) ([]byte, error) {
	pages := uint64(len(f.bytes)) / f.pageSize
	switch {
	case number >= pages:
		return nil, fmt.Errorf("%w: page %d of %d", ErrCorrupt, number, pages)
	case f.seen[number], depth > maxBoltDepth:
		return nil, fmt.Errorf("%w: page %d is in the tree twice", ErrCorrupt, number)
	}
	f.seen[number] = true
	page := f.bytes[number*f.pageSize:]
	order := binary.NativeEndian
	if own := order.Uint64(page); own != number {
		return nil, fmt.Errorf("%w: page %d says that it is %d", ErrCorrupt, number, own)
	}
	more := uint64(order.Uint32(page[12:]))
	if more >= pages-number {
		return nil, fmt.Errorf("%w: page %d goes on for %d of %d", ErrCorrupt, number, more, pages)
	}
	return page[:(more+1)*f.pageSize], nil
}

// splitPage returns what a page says of itself, the number of elements being one that there is room for.
func splitPage(page []byte) (kind, elements int, err error) {
	if len(page) < boltPageHead {
		return 0, 0, fmt.Errorf("%w: a page of %d bytes", ErrCorrupt, len(page))
	}
	kind, elements = int(binary.NativeEndian.Uint16(page[8:])), int(binary.NativeEndian.Uint16(page[10:]))
	if room := (len(page) - boltPageHead) / boltElement; elements > room {
		return 0, 0, fmt.Errorf("%w: %d elements, room for %d", ErrCorrupt, elements, room)
	}
	return kind, elements, nil
}

// eachOfLeaf hands on the elements that b begins with.
func eachOfLeaf(elements int, b []byte, each func(flags uint32, key, value []byte) error) error {
	order := binary.NativeEndian
	for at := range elements {
		element := b[at*boltElement:]
		begin := uint64(order.Uint32(element[4:]))
		middle := begin + uint64(order.Uint32(element[8:]))
		end := middle + uint64(order.Uint32(element[12:]))
		if begin < boltElement || end > uint64(len(element)) {
			return fmt.Errorf("%w: element %d of %d ends at %d of %d", ErrCorrupt, at, elements, end, len(element))
		}
		if err := each(order.Uint32(element), element[begin:middle:middle], element[middle:end:end]); err != nil {
			return err
		}
	}
	return nil
}
