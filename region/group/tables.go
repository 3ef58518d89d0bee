package group

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// The files of a snapshot travel beside Raft, on a connection of their own, before Raft's own message installs the snapshot
// by their checksums alone: that message is taken on the follower's main loop, which must not wait for gigabytes. After the
// first frame (prefaceTables), numbers big-endian:
//
//	leader:    4 bytes of length, a manifest (archive.go)
//	follower:  for each file of it a 0 and 8 bytes: from which byte on it is needed; its size where it is here already
//	leader:    the bytes asked for, file after file
//	follower:  1 byte, 0: all files are here, on disk, and have their checksums
//
// In place of an answer, the follower may send refusedTables, 2 bytes of length, and why. A connection that breaks is made
// again, and goes on where it was.
const (
	// maxManifest bounds a manifest in bytes.
	maxManifest = 64 << 20
	// chunkSize is what is read, sent, and bounded in time at once.
	chunkSize = 256 << 10
	// answerWithin is how long the follower may look at what it has, or write what came.
	answerWithin = 2 * time.Minute
	// sendAgain is between two tries to send what was cut off.
	sendAgain = 100 * time.Millisecond

	takenTables   = 0
	refusedTables = 1
	maxRefusal    = 1 << 10
)

// errSnapshotRefused says that a follower can't take the files of a snapshot, and why.
var errSnapshotRefused = errors.New("the follower refuses the files of a snapshot")

// Snapshots counts what a node's groups have done with snapshots.
type Snapshots struct {
	Made, Installed, Failed uint64 // made here; sent and installed elsewhere; not sent
	Sent, Reused            uint64 // bytes of files that went to followers; that those had already
	Resumed                 uint64 // transfers that went on after a cut
	Sending                 int64  // transfers that have their turn
	Waiting                 int64  // transfers that wait for a turn or are under way
}

// tables is what a node's groups share for sending files of snapshots.
type tables struct {
	turns chan struct{}
	rate  int64 // bytes a second, 0 for no bound
	pace  struct {
		sync.Mutex
		next time.Time // when more may be sent
	}
	made, installed, failed, sent, reused, resumed atomic.Uint64
	waiting                                        atomic.Int64
}

func newTables(rate int64) *tables {
	return &tables{turns: make(chan struct{}, SendsAtOnce), rate: rate}
}

// SendsAtOnce is how many snapshots a node sends at a time.
const SendsAtOnce = 2

// Snapshots returns what was counted so far.
func (h *Host) Snapshots() Snapshots {
	t := h.tables
	return Snapshots{
		Made: t.made.Load(), Installed: t.installed.Load(), Failed: t.failed.Load(), Sent: t.sent.Load(),
		Reused: t.reused.Load(), Resumed: t.resumed.Load(), Waiting: t.waiting.Load(), Sending: int64(len(t.turns)),
	}
}

// slow returns how long to wait before n more bytes are sent.
func (t *tables) slow(n int, now time.Time) time.Duration {
	if t.rate == 0 {
		return 0
	}
	t.pace.Lock()
	defer t.pace.Unlock()
	if t.pace.next.Before(now) {
		t.pace.next = now
	}
	wait := t.pace.next.Sub(now)
	t.pace.next = t.pace.next.Add(time.Duration(float64(n) / float64(t.rate) * float64(time.Second)))
	return wait
}

// InstallSnapshot has a follower take a snapshot: the files that it lacks first, then what names them. A node of an older
// build gets all of it in Raft's own message.
func (t *transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest,
	resp *raft.InstallSnapshotResponse, data io.Reader) error {
	s, ok := data.(*snapshotReader)
	if !ok {
		return fmt.Errorf("snapshot to send is a %T", data)
	}
	t.tables.waiting.Add(1)
	defer t.tables.waiting.Add(-1)
	err := t.install(id, target, args, resp, s)
	t.holds.sent(id, err == nil && resp.Success)
	if err != nil {
		t.tables.failed.Add(1)
		return err
	}
	t.tables.installed.Add(1)
	return nil
}

func (t *transport) install(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest,
	resp *raft.InstallSnapshotResponse, s *snapshotReader) error {
	manifest, err := s.manifest()
	if err != nil {
		return err
	}
	needs := func() { t.holds.need(id, args.LastLogIndex) }
	err = t.sendTables(id, target, args.Term, manifest, s, needs)
	var refused refusal
	if errors.As(err, &refused) && verdict(refused) == refusedFrame { // it knows no such connections
		end, err := t.turn(needs)
		if err != nil {
			return err
		}
		defer end()
		return t.NetworkTransport.InstallSnapshot(id, target, args, resp, s)
	}
	if err != nil {
		return err
	}
	short := *args
	short.Size = int64(len(manifest))
	return t.NetworkTransport.InstallSnapshot(id, target, &short, resp, bytes.NewReader(manifest))
}

// manifest returns the archive that names the snapshot's files.
func (s *snapshotReader) manifest() ([]byte, error) {
	if s.sums == nil { // an older build has made it
		var err error
		if s.sums, err = sumFiles(s.fs, s.dir, nil); err != nil {
			return nil, err
		}
	}
	manifest := appendManifest(nil, s.index, s.sums)
	if len(manifest) > maxManifest {
		return nil, fmt.Errorf("the manifest of a snapshot has %d bytes, %d are the most", len(manifest), maxManifest)
	}
	return manifest, nil
}

// turn waits until this node may send one snapshot more. needs is called now and then meanwhile.
func (t *transport) turn(needs func()) (end func(), err error) {
	again := time.NewTicker(holdFor / 4)
	defer again.Stop()
	for {
		needs()
		select {
		case t.tables.turns <- struct{}{}:
			return func() { <-t.tables.turns }, nil
		case <-t.stream.closed:
			return nil, raft.ErrTransportShutdown
		case <-again.C:
		}
	}
}

// sendTables sends a follower the files that it lacks, and goes on where it was after a cut, for as long as this node leads.
// needs is called while the follower is there and takes them.
func (t *transport) sendTables(id raft.ServerID, target raft.ServerAddress, term uint64, manifest []byte, s *snapshotReader,
	needs func()) error {
	for cuts := 0; ; cuts++ {
		if cuts == 1 {
			t.tables.resumed.Add(1)
		}
		err := t.sendOnce(id, target, term, manifest, s, needs)
		if err == nil || endsSending(err) || !t.leads(term) {
			return err
		}
		if member := t.member.Load(); member != nil && !(*member)(id) {
			return err
		}
		select {
		case <-t.stream.closed:
			return raft.ErrTransportShutdown
		case <-time.After(sendAgain):
		}
	}
}

// endsSending says whether it is of no use to send again what could not be sent.
func endsSending(err error) bool {
	var refused refusal
	if errors.As(err, &refused) {
		return verdict(refused) != refusedShard // which is usual while a node starts
	}
	return errors.Is(err, errSnapshotRefused) || errors.Is(err, ErrCorrupt)
}

func (t *transport) sendOnce(id raft.ServerID, target raft.ServerAddress, term uint64, manifest []byte, s *snapshotReader,
	needs func()) error {
	if address, err := t.stream.listener.book.ServerAddr(id); err == nil {
		target = address
	}
	conn, err := t.stream.dialFor(string(target), maxDial, prefaceTables)
	if err != nil {
		return err
	}
	defer conn.Close()
	end, err := t.turn(needs) // not before: a member that is down must not keep others waiting
	if err != nil {
		return err
	}
	defer end()
	conn.SetDeadline(time.Now().Add(answerWithin))
	if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(manifest))), manifest...)); err != nil {
		return fmt.Errorf("send a manifest: %w", err)
	}
	from := make([]int64, len(s.sums))
	for i, f := range s.sums {
		if from[i], err = readNeed(conn); err != nil {
			return err
		}
		if from[i] < 0 || from[i] > f.Size {
			return fmt.Errorf("%w: %s is wanted from byte %d of %d", errSnapshotRefused, f.Name, from[i], f.Size)
		}
		t.tables.reused.Add(uint64(from[i]))
	}
	for i, f := range s.sums {
		if from[i] == f.Size {
			continue
		}
		if err := t.sendFile(conn, term, s, f, from[i], needs); err != nil {
			return err
		}
	}
	conn.SetDeadline(time.Now().Add(answerWithin))
	return awaitTaken(conn)
}

// sendFile sends a file from some byte on. All of it is read, so that one which is not what it was is found, and nothing
// else counts as sent.
func (t *transport) sendFile(conn net.Conn, term uint64, s *snapshotReader, f snapshotFile, from int64, needs func()) error {
	path := filepath.Join(s.dir, filepath.FromSlash(f.Name))
	file, err := s.fs.Open(path)
	if err != nil {
		return fmt.Errorf("%w snapshot: %w", ErrCorrupt, err)
	}
	defer file.Close()
	sum, buf := newSum(), make([]byte, chunkSize)
	for at := int64(0); at < f.Size; {
		if !t.leads(term) {
			return raft.ErrNotLeader
		}
		n, err := io.ReadFull(file, buf[:min(chunkSize, f.Size-at)])
		if err != nil {
			return fmt.Errorf("%w snapshot: %s: %w", ErrCorrupt, path, noEOF(err))
		}
		sum.Write(buf[:n])
		at += int64(n)
		if at == f.Size && sum.digest() != f.Sum { // before its last bytes go out
			err := fmt.Errorf("%w snapshot: %s is not what it was when the snapshot was made", ErrCorrupt, path)
			t.damagedSnapshot(err)
			return err
		}
		if at <= from {
			continue
		}
		chunk := buf[max(0, int64(n)-(at-from)):n]
		if err := t.wait(t.tables.slow(len(chunk), time.Now())); err != nil {
			return err
		}
		conn.SetDeadline(time.Now().Add(answerWithin))
		if _, err := conn.Write(chunk); err != nil {
			return fmt.Errorf("send a snapshot: %w", err)
		}
		t.tables.sent.Add(uint64(len(chunk)))
		needs()
	}
	return nil
}

func (t *transport) wait(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-t.stream.closed:
		return raft.ErrTransportShutdown
	}
}

// readNeed reads from which byte on a file is needed.
func readNeed(r io.Reader) (int64, error) {
	if err := awaitTaken(r); err != nil {
		return 0, err
	}
	var need [8]byte
	if _, err := io.ReadFull(r, need[:]); err != nil {
		return 0, fmt.Errorf("await what a follower needs: %w", err)
	}
	n := binary.BigEndian.Uint64(need[:])
	if n > math.MaxInt64 {
		return -1, nil
	}
	return int64(n), nil
}

// awaitTaken reads that the follower goes along, or why it doesn't.
func awaitTaken(r io.Reader) error {
	var head [3]byte
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return fmt.Errorf("await a follower's answer: %w", err)
	}
	if head[0] == takenTables {
		return nil
	}
	if _, err := io.ReadFull(r, head[1:]); err != nil {
		return fmt.Errorf("await a follower's answer: %w", err)
	}
	why := make([]byte, min(int(binary.BigEndian.Uint16(head[1:])), maxRefusal))
	if _, err := io.ReadFull(r, why); err != nil {
		return fmt.Errorf("await a follower's answer: %w", err)
	}
	return fmt.Errorf("%w: %q", errSnapshotRefused, why)
}
