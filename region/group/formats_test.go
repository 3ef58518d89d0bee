package group

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// TestNewerIsRefused: what a later version has written or said is refused, and the message says both.
func TestNewerIsRefused(t *testing.T) {
	got := map[string][]error{
		"raft log store":    {newerLogStore(t)},
		"raft stable store": {newerStableStore(t)},
		"raft log entry":    {newerLogEntry()},
		"raft snapshot":     {newerSnapshot(t)},
		"raft archive":      {newerArchive(t)},
		"raft connection":   newerConnection(t),
	}
	for name, version := range Formats() {
		if name == "raft log database" { // the database refuses by itself
			continue
		}
		if len(got[name]) == 0 {
			t.Errorf("%s is not tried", name)
		}
		for i, err := range got[name] {
			both := []string{fmt.Sprint(" ", version+1, ","), fmt.Sprint(" ", version)}
			if err == nil || !strings.Contains(err.Error(), both[0]) || !strings.HasSuffix(err.Error(), both[1]) ||
				name != "raft connection" && !errors.Is(err, ErrNewer) {
				t.Errorf("%s, %d: %v", name, i, err)
			}
		}
	}
}

func newerLogEntry() error {
	entry := testEntry(1, 1)
	value := make([]byte, logValueSize(entry))
	putLogValue(value, entry)
	value[0] = logVersion + 1
	return decodeLogValue(value, new(raft.Log))
}

func newerLogStore(t *testing.T) error {
	newer := binary.BigEndian.AppendUint32(nil, storeVersion+1)
	fs := vfs.NewMem()
	fatal := func(err error) { t.Errorf("fatal: %v", err) }
	store, err := OpenLogStore("log", LogStoreConfig{FS: fs, Fatal: fatal})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(store.db.Set(storeVersionKey, newer, pebble.Sync), store.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = OpenLogStore("log", LogStoreConfig{FS: fs, Fatal: fatal})
	return err
}

func newerStableStore(t *testing.T) error {
	path := filepath.Join(t.TempDir(), "stable.db")
	must(testStable(t, path)).close()
	changeStable(t, path, func(bucket *bbolt.Bucket) error {
		return bucket.Put(storeVersionKey, binary.BigEndian.AppendUint32(nil, stableVersion+1))
	})
	_, err := testStable(t, path)
	return err
}

func newerSnapshot(t *testing.T) error {
	s, err := openSnapshotStore(vfs.Default, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(s.dir, "1"), 0o755); err != nil {
		t.Fatal(err)
	}
	meta := fmt.Sprintf(`{"version": %d}`, metaVersion+1)
	if err := os.WriteFile(filepath.Join(s.dir, "1", metaFile), []byte(meta), 0o644); err != nil {
		t.Fatal(err)
	}
	_, _, err = s.newest()
	return err
}

func newerArchive(t *testing.T) error {
	archive := testArchive(t, map[string]string{"a": "b"}, 7)
	archive[len(archiveMagic)] = archiveVersion + 1
	binary.BigEndian.PutUint32(archive[archiveHeader:], crc32.Checksum(archive[:archiveHeader], castagnoli))
	_, _, err := unpack(vfs.Default, io.NopCloser(bytes.NewReader(archive)), filepath.Join(t.TempDir(), "out"), "")
	return err
}

// newerConnection returns what the older side of a connection says, as the one that is dialled and as the one that dials.
func newerConnection(t *testing.T) []error {
	self := preface{Deployment: "d", Region: "r", Node: "n", Shard: 1}
	frame := self.appendTo(nil)
	frame[len(prefaceMagics[prefaceRaft])] = prefaceVersion + 1
	_, dialled := readPreface(bytes.NewReader(frame))
	if dialled == nil || !errors.Is(dialled, errPrefaceVersion) {
		t.Errorf("a newer first frame: %v", dialled)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(conn, make([]byte, len(frame))); err == nil {
			conn.Write([]byte{byte(refusedVersion), prefaceVersion + 1})
		}
	}()
	listener := testListener(t, self)
	defer listener.close()
	s := testStream(t, listener, 1)
	defer s.Close()
	_, dials := s.Dial(raft.ServerAddress(l.Addr().String()), patience)
	return []error{dialled, dials}
}
