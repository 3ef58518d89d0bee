package logstore

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// nothing is a state machine without a state.
type nothing struct{}

func (nothing) Apply(*raft.Log) any                 { return nil }
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nothing{}, nil }
func (nothing) Restore(r io.ReadCloser) error       { return r.Close() }
func (nothing) Persist(s raft.SnapshotSink) error   { return s.Close() }
func (nothing) Release()                            {}

// region is three nodes in this process: a Raft group a shard, over TCP, with its logs in the store that is measured. Terms
// and votes are in memory: they are written at elections only.
type region struct {
	leaders []*raft.Raft // by shard
	rafts   []*raft.Raft
	close   []func() error
}

const members = 3

func newRegion(b *testing.B, open func(string, int) (node, error), shards int) *region {
	b.Helper()
	r := &region{leaders: make([]*raft.Raft, shards)}
	var stores [members]node
	for m := range stores {
		var err error
		if stores[m], err = open(b.TempDir(), shards); err != nil {
			b.Fatal(err)
		}
		r.close = append(r.close, stores[m].close)
	}
	for shard := range shards {
		r.start(b, stores, shard)
	}
	deadline := time.Now().Add(time.Minute)
	for i := range r.leaders {
		for r.leaders[i] == nil {
			for _, one := range r.rafts[i*members : (i+1)*members] {
				if one.State() == raft.Leader && one.Barrier(time.Second).Error() == nil {
					r.leaders[i] = one
				}
			}
			if time.Now().After(deadline) {
				b.Fatal("no leader")
			}
		}
	}
	return r
}

func (r *region) start(b *testing.B, stores [members]node, shard int) {
	var configuration raft.Configuration
	var transports [members]*raft.NetworkTransport
	for m := range members {
		t, err := raft.NewTCPTransport("127.0.0.1:0", nil, 3, 10*time.Second, io.Discard)
		if err != nil {
			b.Fatal(err)
		}
		transports[m] = t
		configuration.Servers = append(configuration.Servers,
			raft.Server{ID: raft.ServerID(fmt.Sprint(m)), Address: t.LocalAddr()})
	}
	for m, t := range transports {
		cfg := raft.DefaultConfig()
		cfg.LocalID = raft.ServerID(fmt.Sprint(m))
		cfg.Logger = hclog.NewNullLogger()
		// Long, so that a crowded machine deposes nobody; the first leader is made by hand below.
		cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = 20*time.Second, 20*time.Second, 20*time.Second
		cfg.BatchApplyCh = true
		snapshots := raft.NewInmemSnapshotStore()
		stable, log := raft.NewInmemStore(), stores[m].logs[shard]
		if err := raft.BootstrapCluster(cfg, log, stable, snapshots, t, configuration); err != nil {
			b.Fatal(err)
		}
		one, err := raft.NewRaft(cfg, nothing{}, log, stable, snapshots, t)
		if err != nil {
			b.Fatal(err)
		}
		r.rafts = append(r.rafts, one)
		r.close = append([]func() error{func() error {
			if err := one.Shutdown().Error(); err != nil {
				return err
			}
			return t.Close()
		}}, r.close...)
	}
	first := configuration.Servers[0]
	args := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte("1")}}
	if err := transports[1].TimeoutNow(first.ID, first.Address, args, new(raft.TimeoutNowResponse)); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRaft proposes to all shards at once, one entry in flight a shard, and waits until it is applied.
func BenchmarkRaft(b *testing.B) {
	each(b, func(b *testing.B, open func(string, int) (node, error), size, shards int) {
		r := newRegion(b, open, shards)
		data := payload(size)
		var mu sync.Mutex
		var took []time.Duration
		load(b, shards, func(shard int, _ uint64) error {
			start := time.Now()
			err := r.leaders[shard].Apply(data, 10*time.Second).Error()
			mu.Lock()
			took = append(took, time.Since(start))
			mu.Unlock()
			return err
		})
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		if err := closers(r.close)(); err != nil {
			b.Fatal(err)
		}
	})
}
