package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/watershed-db/watershed/cmd/watershed/internal/output"
	"github.com/watershed-db/watershed/proto/client"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

func newUpgrade() *cobra.Command {
	var o connection
	var to uint32
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Print which formats the nodes of a region know, or put one in force",
		Long: "Print which format each node of the region knows, and which is in force. With --to, put a format in force, for\n" +
			"good: what a newer build can do beyond an older one begins then, and the older one no longer starts. Every node\n" +
			"of the region must be up and know it. docs/upgrade.md has the whole way.",
		Example:           "  watershed upgrade --endpoint 127.0.0.1:7001\n  watershed upgrade --to 2 --endpoint 127.0.0.1:7001",
		Args:              exactArgs(0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("to") && to == 0 {
				return usagef("--to 0: formats begin at 1")
			}
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				if to > 0 {
					if err := c.Raise(ctx, to); err != nil {
						return fmt.Errorf("upgrade: %w", err)
					}
				}
				t, err := c.Topology(ctx)
				if err != nil {
					return fmt.Errorf("upgrade: %w", err)
				}
				u := newUpgradeJSON(t)
				if f == output.Table {
					return u.table(cmd.OutOrStdout())
				}
				return output.Object(cmd.OutOrStdout(), f, u)
			})
		},
	}
	cmd.Flags().Uint32Var(&to, "to", 0, "the format to put in force in the region")
	o.flags(cmd, 30*time.Second, "how long to try")
	return cmd
}

// upgradeJSON says where the region of the node that answered stands.
type upgradeJSON struct {
	Region  string              `json:"region"`
	InForce uint32              `json:"in_force"` // the least of its shards
	Nodes   []upgradeNodeFormat `json:"nodes"`
}

type upgradeNodeFormat struct {
	ID    string  `json:"id"`
	Knows *uint32 `json:"knows"` // null: it did not answer
}

func newUpgradeJSON(t *watershedv1.TopologyResponse) upgradeJSON {
	out := upgradeJSON{Region: t.GetRegion(), Nodes: []upgradeNodeFormat{}}
	for _, r := range t.GetRegions() {
		if r.GetName() != t.GetRegion() {
			continue
		}
		for i, s := range r.GetShards() {
			if i == 0 || s.GetFormat() < out.InForce {
				out.InForce = s.GetFormat()
			}
		}
		for _, n := range r.GetNodes() {
			node := upgradeNodeFormat{ID: n.GetId()}
			if format := n.GetFormat(); n.GetUp() && format > 0 {
				node.Knows = &format
			}
			out.Nodes = append(out.Nodes, node)
		}
	}
	return out
}

func (u upgradeJSON) table(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "region %s, format %d in force\n\n", output.Printable(u.Region), u.InForce); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	t := output.NewTable(w, "NODE", "KNOWS UP TO")
	for _, n := range u.Nodes {
		knows := "no answer"
		if n.Knows != nil {
			knows = strconv.FormatUint(uint64(*n.Knows), 10)
		}
		t.Add(n.ID, knows)
	}
	return t.Flush()
}
