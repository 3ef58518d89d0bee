package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/watershed-db/watershed/cmd/watershed/internal/output"
	"github.com/watershed-db/watershed/proto/client"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

func newTopology() *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use:   "topology",
		Short: "Print regions, nodes, shards, leaders, owners, epochs and lag",
		Long: "Print how the deployment stands, as the node that answers sees it: the nodes of each region, and of each\n" +
			"region's copy of each shard its leader, owner and epoch, and how far it is behind the other regions.",
		Example:           "  watershed topology --endpoint 127.0.0.1:7001",
		Args:              exactArgs(0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				t, err := c.Topology(ctx)
				if err != nil {
					return fmt.Errorf("topology: %w", err)
				}
				if f == output.Table {
					return topologyTables(cmd.OutOrStdout(), t)
				}
				return output.Object(cmd.OutOrStdout(), f, newTopologyJSON(t))
			})
		},
	}
	o.flags(cmd, 10*time.Second, "how long to try")
	return cmd
}

type topologyJSON struct {
	Deployment string       `json:"deployment"`
	Shards     uint32       `json:"shards"`
	Region     string       `json:"region"` // of the node that answered
	Node       string       `json:"node"`
	Version    string       `json:"version"`
	Regions    []regionJSON `json:"regions"`
}

type regionJSON struct {
	Name      string      `json:"name"`
	Member    uint32      `json:"member"`
	Reachable bool        `json:"reachable"`
	Note      string      `json:"note,omitempty"`
	Nodes     []nodeJSON  `json:"nodes"`
	Shards    []shardJSON `json:"shards"`
}

type nodeJSON struct {
	ID   string `json:"id"`
	GRPC string `json:"grpc"`
	HTTP string `json:"http"`
	Up   bool   `json:"up"`
	// Zone, weight and state are of the placement; "" where the region has none yet.
	Zone   string `json:"zone,omitempty"`
	Weight uint32 `json:"weight,omitempty"`
	State  string `json:"state,omitempty"`

	Damaged []damageJSON `json:"damaged,omitempty"`
}

// damageJSON is a replica that is out until it is rebuilt.
type damageJSON struct {
	Shard uint32 `json:"shard"`
	File  string `json:"file"`
	What  string `json:"what"`
	Time  int64  `json:"time_ms"`
}

type shardJSON struct {
	Shard   uint32    `json:"shard"`
	Leader  string    `json:"leader"` // "" if there is none
	Term    uint64    `json:"term"`
	Applied uint64    `json:"applied_index"`
	Owner   string    `json:"owner"`
	Epoch   uint64    `json:"epoch"`
	Lag     []lagJSON `json:"lag"`
	Voters  []string  `json:"voters,omitempty"`
}

type lagJSON struct {
	Region    string `json:"region"`
	Reachable bool   `json:"reachable"`
	Silent    int64  `json:"silent_ms"`
	Behind    *int64 `json:"records_behind"` // null: unknown
}

func newTopologyJSON(t *watershedv1.TopologyResponse) topologyJSON {
	out := topologyJSON{t.GetDeployment(), t.GetShards(), t.GetRegion(), t.GetNode(), t.GetVersion(), []regionJSON{}}
	for _, r := range t.GetRegions() {
		region := regionJSON{r.GetName(), r.GetMember(), r.GetReachable(), r.GetNote(), []nodeJSON{}, []shardJSON{}}
		for _, n := range r.GetNodes() {
			node := nodeJSON{ID: n.GetId(), GRPC: n.GetGrpc(), HTTP: n.GetHttp(), Up: n.GetUp(), Zone: n.GetZone(), Weight: n.GetWeight(),
				State: n.GetState()}
			for _, d := range n.GetDamaged() {
				node.Damaged = append(node.Damaged, damageJSON{d.GetShard(), d.GetFile(), d.GetWhat(), d.GetTimeMs()})
			}
			region.Nodes = append(region.Nodes, node)
		}
		for _, s := range r.GetShards() {
			shard := shardJSON{s.GetShard(), s.GetLeader(), s.GetTerm(), s.GetAppliedIndex(), s.GetOwner(), s.GetEpoch(), []lagJSON{}, s.GetVoters()}
			for _, l := range s.GetLag() {
				shard.Lag = append(shard.Lag, lagJSON{l.GetRegion(), l.GetReachable(), l.GetSilentMs(), known(l.GetRecordsBehind())})
			}
			region.Shards = append(region.Shards, shard)
		}
		out.Regions = append(out.Regions, region)
	}
	return out
}

// known returns nil for the negative number that stands for unknown.
func known(n int64) *int64 {
	if n < 0 {
		return nil
	}
	return &n
}

func topologyTables(w io.Writer, t *watershedv1.TopologyResponse) error {
	if _, err := fmt.Fprintf(w, "deployment %s, %d shards, seen by %s in %s\n\n", output.Printable(t.GetDeployment()), t.GetShards(),
		output.Printable(t.GetNode()), output.Printable(t.GetRegion())); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	nodes := output.NewTable(w, "REGION", "NODE", "GRPC", "HTTP", "STATE")
	shards := output.NewTable(w, "REGION", "SHARD", "LEADER", "TERM", "APPLIED", "OWNER", "EPOCH", "LAG")
	for _, r := range t.GetRegions() {
		if r.GetNote() != "" || len(r.GetNodes()) == 0 {
			nodes.Add(r.GetName(), "", "", "", r.GetNote())
		}
		for _, n := range r.GetNodes() {
			state := "down"
			if n.GetUp() {
				state = "up"
			}
			if s := n.GetState(); s != "" && s != "active" {
				state += ", " + s
			}
			for _, d := range n.GetDamaged() {
				state += fmt.Sprintf("; shard %d is damaged: %s", d.GetShard(), d.GetFile())
			}
			nodes.Add(r.GetName(), n.GetId(), n.GetGrpc(), n.GetHttp(), state)
		}
		for _, s := range r.GetShards() {
			shards.Add(r.GetName(), strconv.FormatUint(uint64(s.GetShard()), 10), s.GetLeader(), strconv.FormatUint(s.GetTerm(), 10),
				strconv.FormatUint(s.GetAppliedIndex(), 10), s.GetOwner(), strconv.FormatUint(s.GetEpoch(), 10), lags(s.GetLag()))
		}
	}
	if err := nodes.Flush(); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return shards.Flush()
}

// lags says how far a shard is behind each other region.
func lags(list []*watershedv1.PeerLag) string {
	var out []string
	for _, l := range list {
		behind := "unknown"
		if n := l.GetRecordsBehind(); n >= 0 {
			behind = strconv.FormatInt(n, 10)
		}
		if !l.GetReachable() {
			behind += fmt.Sprintf(" (silent for %s)", time.Duration(l.GetSilentMs())*time.Millisecond)
		}
		out = append(out, l.GetRegion()+" "+behind)
	}
	return strings.Join(out, ", ")
}
