package region

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/processor/job"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/config"
	"github.com/watershed-db/watershed/region/router"
)

// cluster is a region of a few nodes in this process.
type cluster struct {
	t      *testing.T
	dir    string
	config config.Config
	logs   *fakeLogs
	conns  *router.Conns
	nodes  []*running
	adjust func(*Options) // may be nil
}

type running struct {
	node *Node
	stop context.CancelFunc
	done chan error
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newCluster starts a region of its own.
func newCluster(t *testing.T, size, shards int) *cluster {
	t.Helper()
	return newClusters(t, size, shards, "a")[0]
}

// newClusters starts a deployment of regions, the first of which owns it.
func newClusters(t *testing.T, size, shards int, regions ...string) []*cluster {
	t.Helper()
	return newClustersWith(t, size, shards, nil, regions...)
}

// newClustersWith starts one whose nodes have other options.
func newClustersWith(t *testing.T, size, shards int, adjust func(*Options), regions ...string) []*cluster {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	// A transfer of leadership that is cut off by a shutdown leaves these two of the library behind, now and then.
	t.Cleanup(func() {
		goleak.VerifyNone(t, leaks, goleak.IgnoreTopFunction("github.com/hashicorp/raft.(*Raft).leadershipTransfer"),
			goleak.IgnoreTopFunction("github.com/hashicorp/raft.(*Raft).leaderLoop.func2"))
	})
	out := make([]*cluster, len(regions))
	ports := make([][]Listeners, len(regions))
	var members []config.Region
	for i, name := range regions {
		c := &cluster{t: t, dir: t.TempDir(), logs: &fakeLogs{}, nodes: make([]*running, size), adjust: adjust, conns: router.NewConns()}
		c.logs.partitions.Store(2)
		c.config = config.Config{
			Deployment: "test", Region: name, Shards: shards, Kafka: config.Kafka{Brokers: []string{"127.0.0.1:1"}},
		}
		member := config.Region{Name: name, Member: uint16(i + 1)}
		for n := range size {
			l := Listeners{listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")}
			ports[i] = append(ports[i], l)
			c.config.Nodes = append(c.config.Nodes, config.Node{
				ID: fmt.Sprintf("n%d", n), Raft: l.Raft.Addr().String(), GRPC: l.GRPC.Addr().String(), HTTP: l.HTTP.Addr().String(),
			})
			member.GRPC = append(member.GRPC, l.GRPC.Addr().String())
		}
		out[i], members = c, append(members, member)
	}
	t.Cleanup(func() {
		for _, c := range out {
			c.conns.Close()
			for i := range c.nodes {
				c.stop(i)
			}
		}
	})
	for i, c := range out {
		c.config.Regions = members
		for n := range size {
			c.start(n, ports[i][n])
		}
	}
	return out
}

func (c *cluster) start(i int, ports Listeners) {
	c.t.Helper()
	o := Options{
		Config: c.config, Version: "test", Parts: Parts{Logs: c.logs}, Listeners: ports, Logger: testLogger(),
		Fatal: func(err error) { c.t.Errorf("node %d: fatal: %v", i, err) },
	}
	o.Config.Node, o.Config.Data = c.config.Nodes[i].ID, filepath.Join(c.dir, c.config.Nodes[i].ID)
	o.Config = o.Config.Defaults()
	if c.adjust != nil {
		c.adjust(&o)
	}
	n, err := Open(o)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{n, stop, make(chan error, 1)}
	go func() { r.done <- n.Run(ctx) }()
	c.nodes[i] = r
}

// testLogger logs where REGION_TEST_LOG names a level.
func testLogger() hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Level: hclog.LevelFromString(cmp.Or(os.Getenv("REGION_TEST_LOG"), "off"))})
}

func (c *cluster) stop(i int) {
	c.t.Helper()
	r := c.nodes[i]
	if r == nil {
		return
	}
	c.nodes[i] = nil
	r.stop()
	select {
	case err := <-r.done:
		if err != nil {
			c.t.Errorf("node %d: %v", i, err)
		}
	case <-time.After(patience):
		c.t.Fatalf("node %d does not stop", i)
	}
}

func (c *cluster) conn(i int) *grpc.ClientConn {
	c.t.Helper()
	conn, err := c.conns.To(c.config.Nodes[i].GRPC)
	if err != nil {
		c.t.Fatal(err)
	}
	return conn
}

// until retries what a node that is starting, or looking for a leader, may refuse.
func until(t *testing.T, what string, try func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *cluster) apply(i int, file string) *watershedv1.ApplyJobResponse {
	c.t.Helper()
	var out *watershedv1.ApplyJobResponse
	until(c.t, "apply", func(ctx context.Context) (err error) {
		out, err = watershedv1.NewJobServiceClient(c.conn(i)).Apply(ctx, &watershedv1.ApplyJobRequest{File: []byte(file)})
		return err
	})
	return out
}

// feed is what a worker would do: it takes made-up records of one source and sends what they add to each shard.
type feed struct {
	t      *testing.T
	c      *cluster
	job    *job.Job
	id     crdt.GenerationID
	source crdt.Source
	at     map[keyspace.ShardID]crdt.Point
	next   crdt.Point
}

func (c *cluster) feed(id []byte, partition int32) *feed {
	c.t.Helper()
	j, err := job.Parse("toy", []byte(toyJob))
	if err != nil {
		c.t.Fatal(err)
	}
	f := &feed{t: c.t, c: c, job: j, id: crdt.GenerationID(id), at: map[keyspace.ShardID]crdt.Point{}}
	f.source = crdt.Source{Region: c.config.RegionID(), Topic: "events", Partition: partition}
	f.next = crdt.FirstPoint(f.source, 5)
	for i := range c.config.Shards {
		f.at[keyspace.ShardID(i)] = f.next
	}
	return f
}

// send counts one record for each key at a time, and flushes.
func (f *feed) send(node int, time int64, keys ...string) {
	f.t.Helper()
	cells := map[keyspace.ShardID][]crdt.Delta{}
	counts := map[string]int{}
	for _, k := range keys {
		counts[k]++
		f.next = f.next.After(f.next.Offset, crdt.Hash{byte(f.next.Offset)}, max(f.next.Watermark, time), crdt.Counted)
	}
	for k, n := range counts {
		cell := crdt.NewCell(f.job.Schema())
		for range n {
			cell.Touch(time)
			cell.Add(0, crdt.Null(), crdt.Order{})
			cell.Add(1, crdt.Int(2), crdt.Order{})
		}
		key := crdt.Text(k).AppendKey(nil)
		end, _, _ := f.job.Window.Place(time, crdt.MinTime, 0)
		id := keyspace.ShardOf(key, f.c.config.Shards)
		cells[id] = append(cells[id], crdt.Delta{Slot: crdt.Slot{Time: end, Key: key}, Cell: cell.AppendTo(nil)})
	}
	for id, from := range f.at {
		a := crdt.Advance{Generation: f.id, Group: f.source.Region, Deltas: cells[id]}
		a.Ranges = []crdt.Range{{Source: f.source, From: from.Mark(), To: f.next}}
		slices.SortFunc(a.Deltas, func(x, y crdt.Delta) int { return crdt.CompareSlots(x.Slot, y.Slot) })
		f.advance(node, id, a.AppendTo(nil))
		f.at[id] = f.next
	}
}

// advance proposes at a node, following the leader that the errors name.
func (f *feed) advance(node int, id keyspace.ShardID, advance []byte) {
	f.t.Helper()
	address := f.c.config.Nodes[node].GRPC
	until(f.t, "advance", func(ctx context.Context) error {
		conn, err := f.c.conns.To(address)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		out, err := regionv1.NewShardServiceClient(conn).Advance(ctx, &regionv1.AdvanceRequest{
			Deployment: "test", Shard: uint32(id), Advance: advance,
		})
		switch {
		case err != nil:
			if leader := router.Detail(err).GetLeader(); leader != "" {
				address = leader
			} else {
				address = f.c.config.Nodes[node].GRPC
			}
			return err
		case out.Outcome != regionv1.Outcome_OUTCOME_APPLIED && out.Outcome != regionv1.Outcome_OUTCOME_DUPLICATE:
			return fmt.Errorf("outcome %v", out.Outcome)
		}
		return nil
	})
}

// scan returns the rows as text, and the summary.
func (c *cluster) scan(i int, in *watershedv1.ScanRequest) (rows []string, states []*watershedv1.ShardState, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	stream, err := watershedv1.NewStateServiceClient(c.conn(i)).Scan(ctx, in)
	if err != nil {
		return nil, nil, err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return rows, states, nil
		}
		if err != nil {
			return nil, nil, err
		}
		for _, r := range m.GetRows().GetRows() {
			rows = append(rows, fmt.Sprintf("%d %s n=%d s=%d r=%d %v", r.GetWindowEndMs(), r.Key[0].GetText(), r.Values[0].GetInt(),
				r.Values[1].GetInt(), r.Revision, r.Complete))
		}
		if s := m.GetSummary(); s != nil {
			states = s.Shards
		}
	}
}

func toyScan(consistency watershedv1.Consistency) *watershedv1.ScanRequest {
	return &watershedv1.ScanRequest{Selection: &watershedv1.Selection{Job: "toy", Consistency: consistency}}
}

func (c *cluster) expect(i int, in *watershedv1.ScanRequest, want []string) {
	c.t.Helper()
	until(c.t, fmt.Sprintf("scan at node %d", i), func(context.Context) error {
		rows, _, err := c.scan(i, in)
		if err == nil && !slices.Equal(rows, want) {
			err = fmt.Errorf("rows\n%s\nwanted\n%s", strings.Join(rows, "\n"), strings.Join(want, "\n"))
		}
		return err
	})
}
