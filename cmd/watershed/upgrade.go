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
	var without []string
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Print which formats the nodes know, or put one in force in a region",
		Long: "Print which format each node of each region knows, and which is in force. With --to, put a format in force in the\n" +
			"region of the endpoint, for good: what a newer build can do beyond an older one begins then, and the older one no\n" +
			"longer starts. Every node of every region must be up and know it, since what one region writes reaches the others;\n" +
			"a region that is gone can be left out by name, and must not come back with an older build. docs/upgrade.md has the\n" +
			"whole way.",
		Example:           "  watershed upgrade --endpoint 127.0.0.1:7001\n  watershed upgrade --to 2 --endpoint 127.0.0.1:7001",
		Args:              exactArgs(0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("to") && to == 0 {
				return usagef("--to 0: formats begin at 1")
			}
			if to == 0 && len(without) > 0 {
				return usagef("--without is of use with --to only")
			}
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				if to > 0 {
					if err := c.Raise(ctx, to, without...); err != nil {
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
	cmd.Flags().StringArrayVar(&without, "without", nil, "a region that is not asked whether it knows the format (repeatable)")
	o.flags(cmd, 30*time.Second, "how long to try")
	return cmd
}

// upgradeJSON says where the regions stand, that of the node that answered first of all.
type upgradeJSON struct {
	Region  string              `json:"region"`
	InForce uint32              `json:"in_force"` // the least of its shards
	Nodes   []upgradeNodeFormat `json:"nodes"`
	Others  []upgradeRegion     `json:"others"`
}

// upgradeRegion is where another region stands.
type upgradeRegion struct {
	Region  string              `json:"region"`
	InForce *uint32             `json:"in_force"` // null: it did not answer
	Nodes   []upgradeNodeFormat `json:"nodes"`
}

type upgradeNodeFormat struct {
	ID    string  `json:"id"`
	Knows *uint32 `json:"knows"` // null: it did not answer
}

func newUpgradeJSON(t *watershedv1.TopologyResponse) upgradeJSON {
	out := upgradeJSON{Region: t.GetRegion(), Nodes: []upgradeNodeFormat{}, Others: []upgradeRegion{}}
	for _, r := range t.GetRegions() {
		x := newUpgradeRegion(r)
		if r.GetName() != t.GetRegion() {
			out.Others = append(out.Others, x)
			continue
		}
		if out.Nodes = x.Nodes; x.InForce != nil {
			out.InForce = *x.InForce
		}
	}
	return out
}

func newUpgradeRegion(r *watershedv1.Region) upgradeRegion {
	out := upgradeRegion{Region: r.GetName(), Nodes: []upgradeNodeFormat{}}
	for _, s := range r.GetShards() {
		if format := s.GetFormat(); out.InForce == nil || format < *out.InForce {
			out.InForce = &format
		}
	}
	for _, n := range r.GetNodes() {
		node := upgradeNodeFormat{ID: n.GetId()}
		if format := n.GetFormat(); n.GetUp() && format > 0 {
			node.Knows = &format
		}
		out.Nodes = append(out.Nodes, node)
	}
	return out
}

func (u upgradeJSON) table(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "region %s, format %d in force\n\n", output.Printable(u.Region), u.InForce); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	t := output.NewTable(w, "REGION", "IN FORCE", "NODE", "KNOWS UP TO")
	for _, r := range append([]upgradeRegion{{u.Region, &u.InForce, u.Nodes}}, u.Others...) {
		if len(r.Nodes) == 0 {
			t.Add(r.Region, formatOf(r.InForce), "", "no answer")
		}
		for _, n := range r.Nodes {
			t.Add(r.Region, formatOf(r.InForce), n.ID, formatOf(n.Knows))
		}
	}
	return t.Flush()
}

func formatOf(format *uint32) string {
	if format == nil {
		return "no answer"
	}
	return strconv.FormatUint(uint64(*format), 10)
}
