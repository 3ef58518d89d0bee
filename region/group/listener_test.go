package group

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
)

func FuzzPreface(f *testing.F) {
	good := preface{Deployment: "d", Region: "eu", Node: "n1", Shard: 3}.appendTo(nil)
	f.Add(good)
	f.Add(preface{Deployment: strings.Repeat("x", MaxName)}.appendTo(nil))
	f.Add(good[:len(good)-1])
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte(prefaceMagics[prefaceRaft] + "\x02\xff\xff"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		r := bytes.NewReader(frame)
		p, err := readPreface(r)
		if err != nil {
			return
		}
		if read := frame[:len(frame)-r.Len()]; !bytes.Equal(p.appendTo(nil), read) {
			t.Fatalf("%x was read as %+v", read, p)
		}
	})
}

// testListener is a node's listener on loopback.
func testListener(t *testing.T, self preface) *listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := newListener(l, self, newBook(nil), nil, hclog.NewNullLogger())
	t.Cleanup(func() { m.close() })
	return m
}

func testStream(t *testing.T, m *listener, shard uint32) *stream {
	t.Helper()
	s, err := newStream(m, shard, m.net.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestWrongConnectionsAreRefused(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	right := preface{Deployment: "d", Region: "eu", Node: "a"}
	server := testListener(t, right)
	defer server.close()
	accepting := testStream(t, server, 1)
	for _, test := range []struct {
		name  string
		self  preface
		shard uint32
		want  verdict
	}{
		{"right", right, 1, accepted},
		{"deployment", preface{Deployment: "other", Region: "eu", Node: "b"}, 1, refusedDeployment},
		{"region", preface{Deployment: "d", Region: "us", Node: "b"}, 1, refusedRegion},
		{"shard", right, 2, refusedShard},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := testListener(t, test.self)
			defer client.close()
			s := testStream(t, client, test.shard)
			defer s.Close()
			conn, err := s.Dial(raft.ServerAddress(accepting.Addr().String()), time.Second)
			if test.want == accepted {
				if err != nil {
					t.Fatal(err)
				}
				checkConnected(t, conn, accepting)
				return
			}
			var unreachable *dialError
			if !errors.As(err, &unreachable) || !strings.Contains(err.Error(), test.want.String()) {
				t.Fatalf("got %v", err)
			}
			if n := server.refused[test.want].Load(); n != 1 {
				t.Fatalf("counted %d", n)
			}
		})
	}
	accepting.Close()
}

func checkConnected(t *testing.T, client net.Conn, s *stream) {
	t.Helper()
	server, err := s.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	var got [1]byte
	if _, err := io.ReadFull(server, got[:]); err != nil || got[0] != 'x' {
		t.Fatalf("read %q, %v", got, err)
	}
}

func TestGarbageIsRefused(t *testing.T) {
	server := testListener(t, preface{Deployment: "d"})
	for _, test := range []struct {
		garbage string
		want    verdict
	}{
		{"GET / HTTP/1.1\r\n\r\n", refusedFrame},
		{prefaceMagics[prefaceRaft] + "\x09\x00\x00", refusedVersion},
		{prefaceMagics[prefaceRaft] + "\x02\xff\xff", refusedFrame},
	} {
		conn, err := net.Dial("tcp", server.net.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, test.garbage); err != nil {
			t.Fatal(err)
		}
		var answer [1]byte
		if _, err := io.ReadFull(conn, answer[:]); err != nil || verdict(answer[0]) != test.want {
			t.Fatalf("%q: answer %v, %v", test.garbage, verdict(answer[0]), err)
		}
	}
}

// testTransports are the transports of two nodes for one shard.
func testTransports(t *testing.T) (a, b *transport, addressOfB raft.ServerAddress) {
	t.Helper()
	self := preface{Deployment: "d", Region: "eu", Node: "a"}
	la, lb := testListener(t, self), testListener(t, self)
	address := lb.net.Addr().String()
	cfg := &Config{
		Members:          []Member{{"b", address}},
		TransportTimeout: patience, ElectionTimeout: patience,
	}
	newOne := func(l *listener) *transport {
		tr := newTransport(testStream(t, l, testShard), cfg, newGuard(patience, patience, nil), newTables(0), hclog.NewNullLogger())
		t.Cleanup(func() { tr.Close() })
		return tr
	}
	return newOne(la), newOne(lb), raft.ServerAddress(address)
}

// serve answers every call that reaches tr until it is closed, and says what came.
func serve(tr *transport) <-chan any {
	seen := make(chan any, 16)
	go func() {
		for {
			select {
			case rpc := <-tr.Consumer():
				seen <- rpc.Command
				switch rpc.Command.(type) {
				case *raft.AppendEntriesRequest:
					rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
				case *raft.RequestVoteRequest:
					rpc.Respond(&raft.RequestVoteResponse{Granted: true}, nil)
				}
			case <-tr.stream.closed:
				return
			}
		}
	}()
	return seen
}

// TestHeartbeatsTakeTheMainLoop holds off a fast path that can let logs diverge (hashicorp/raft#695).
func TestHeartbeatsTakeTheMainLoop(t *testing.T) {
	a, b, address := testTransports(t)
	b.SetHeartbeatHandler(func(raft.RPC) { t.Error("heartbeat beside the main loop") })
	seen := serve(b)
	args := &raft.AppendEntriesRequest{Term: 1, RPCHeader: raft.RPCHeader{Addr: []byte("a")}}
	if !isHeartbeat(args) {
		t.Fatal("not a heartbeat")
	}
	if err := a.AppendEntries("b", address, args, new(raft.AppendEntriesResponse)); err != nil {
		t.Fatal(err)
	}
	if _, ok := (<-seen).(*raft.AppendEntriesRequest); !ok {
		t.Fatal("no heartbeat came")
	}
}

func TestVotesSurviveStaleConnections(t *testing.T) {
	a, b, address := testTransports(t)
	serve(b)
	vote := func() error {
		resp := new(raft.RequestVoteResponse)
		if err := a.RequestVote("b", address, &raft.RequestVoteRequest{Term: 1}, resp); err != nil {
			return err
		}
		if !resp.Granted {
			return errors.New("not granted")
		}
		return nil
	}
	if err := vote(); err != nil {
		t.Fatal(err)
	}
	b.Close() // b restarts; a has a dead connection to it in its pool
	s, err := newStream(b.stream.listener, testShard, string(address), nil)
	if err != nil {
		t.Fatal(err)
	}
	restarted := newTransport(s, &Config{TransportTimeout: patience}, newGuard(patience, patience, nil), newTables(0), hclog.NewNullLogger())
	defer restarted.Close()
	serve(restarted)
	if err := vote(); err != nil {
		t.Fatal(err)
	}
}

func TestReplicationWaitsForAnUnreachablePeer(t *testing.T) {
	a, b, address := testTransports(t)
	b.Close() // its shard is refused from here on
	leads := make(chan bool, 1)
	leads <- true
	a.leadBy(func() (term, commit uint64) {
		led := <-leads
		leads <- led
		if led {
			return 4, 1
		}
		return 0, 0
	})
	args := func(term uint64) *raft.AppendEntriesRequest {
		return &raft.AppendEntriesRequest{Term: term, PrevLogEntry: 1, PrevLogTerm: 1}
	}
	if err := a.AppendEntries("b", address, args(3), new(raft.AppendEntriesResponse)); err == nil {
		t.Fatal("reached a closed peer")
	}
	done := make(chan error, 1)
	go func() { done <- a.AppendEntries("b", address, args(4), new(raft.AppendEntriesResponse)) }()
	refused := &b.stream.listener.refused[refusedShard]
	before := refused.Load()
	awaitCondition(t, "more tries", func() bool { return refused.Load() > before+1 })
	s, err := newStream(b.stream.listener, testShard, string(address), nil)
	if err != nil {
		t.Fatal(err)
	}
	restarted := newTransport(s, &Config{TransportTimeout: patience}, newGuard(patience, patience, nil), newTables(0), hclog.NewNullLogger())
	serve(restarted)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	restarted.Close()
	go func() { done <- a.AppendEntries("b", address, args(4), new(raft.AppendEntriesResponse)) }()
	<-leads // deposed
	leads <- false
	if err := <-done; err == nil {
		t.Fatal("reached a closed peer")
	}
}

func TestOpenErrors(t *testing.T) {
	members := func(address string) []Member { return []Member{{ID: "n0", Address: address}} }
	free := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	dir := t.TempDir()
	first, err := Open(testConfig(dir, "n0", members(free())))
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := Open(testConfig(dir, "n0", members(free()))); !errors.Is(err, ErrLocked) || strings.Contains(err.Error(), "\n") {
		t.Errorf("locked: %v", err)
	}
	other := t.TempDir()
	if _, err := Open(testConfig(other, "n0", members(first.Addr().String()))); !errors.Is(err, ErrPortInUse) {
		t.Errorf("port in use: %v", err)
	}
	again, err := Open(testConfig(other, "n0", members(free()))) // the failure let go of the folder
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(again.Close(), again.Close()); err != nil {
		t.Error(err)
	}
	if os.Geteuid() == 0 {
		return // to whom nothing is read-only
	}
	sealed := filepath.Join(t.TempDir(), "sealed")
	if err := os.Mkdir(sealed, 0o500); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(testConfig(sealed, "n0", members(free()))); !errors.Is(err, ErrReadOnly) {
		t.Errorf("read-only: %v", err)
	}
}
