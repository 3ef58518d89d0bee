package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/watershed-db/watershed/cmd/watershed/internal/output"
	"github.com/watershed-db/watershed/proto/client"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// nodeAdmin holds the flags of the commands that change a region's nodes.
type nodeAdmin struct {
	connection
	wait bool
}

// nodeChange is a call that changes a region's nodes.
type nodeChange func(ctx context.Context, c *client.Client, id string) (*watershedv1.NodeResponse, error)

func (a *nodeAdmin) command(use, short, long, until string, change nodeChange) *cobra.Command {
	cmd := &cobra.Command{
		Use: use + " ID", Short: short, Long: long,
		Args: exactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				answer, err := change(ctx, c, args[0])
				if err == nil && a.wait {
					answer, err = a.await(ctx, cmd, c, args[0], answer.GetPlacement().GetPlan(), until)
				}
				if err != nil {
					return fmt.Errorf("node %s: %w", use, err)
				}
				return printNode(cmd, f, answer)
			})
		},
	}
	cmd.Flags().BoolVar(&a.wait, "wait", false, "return when it is carried out, at most --timeout later")
	a.flags(cmd, 30*time.Second, "how long to try, and to wait")
	return cmd
}

// await asks until a node is in a state, and everything that was decided up to a plan is carried out.
func (a *nodeAdmin) await(ctx context.Context, cmd *cobra.Command, c *client.Client, id string, plan uint64, until string) (
	*watershedv1.NodeResponse, error,
) {
	waiting, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	said := fmt.Sprintf("plan %d is written down", plan)
	tell := func(what string) { fmt.Fprintf(cmd.ErrOrStderr(), "watershed: %s\n", output.Printable(what)) }
	for {
		t, err := c.Topology(waiting)
		if err != nil && waiting.Err() == nil {
			return nil, fmt.Errorf("%s and goes on, but nobody can be asked: %w", said, err)
		}
		out := nodeOf(t, id)
		state, p := out.GetNode().GetState(), out.GetPlacement()
		if err == nil && state == until && p.GetDone() >= max(plan, p.GetPlan()) {
			return out, nil
		}
		if now := fmt.Sprintf("node %s is %s, plan %d of %d is done", id, state, p.GetDone(), p.GetPlan()); err == nil && now != said {
			said = now
			tell(now)
		}
		select {
		case <-ctx.Done():
			tell("the region goes on without this command: " + said)
			return nil, ctx.Err()
		case <-waiting.Done():
			return nil, fmt.Errorf("not carried out within %s: %s; it goes on", a.timeout, said)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// nodeOf finds a node in the region of the one that answered; one that is not there any more is removed.
func nodeOf(t *watershedv1.TopologyResponse, id string) *watershedv1.NodeResponse {
	out := &watershedv1.NodeResponse{Node: &watershedv1.Node{Id: id, State: "removed"}}
	for _, r := range t.GetRegions() {
		if r.GetName() != t.GetRegion() {
			continue
		}
		out.Placement = r.GetPlacement()
		for _, n := range r.GetNodes() {
			if n.GetId() == id {
				out.Node = n
			}
		}
	}
	return out
}

type nodeResultJSON struct {
	Node  string `json:"node"`
	State string `json:"state"`
	Plan  uint64 `json:"plan"`
	Done  uint64 `json:"done"`
}

func printNode(cmd *cobra.Command, f output.Format, n *watershedv1.NodeResponse) error {
	x := nodeResultJSON{n.GetNode().GetId(), n.GetNode().GetState(), n.GetPlacement().GetPlan(), n.GetPlacement().GetDone()}
	if f != output.Table {
		return output.Object(cmd.OutOrStdout(), f, x)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "node %s: %s (plan %d, carried out up to %d)\n", output.Printable(x.Node),
		output.Printable(x.State), x.Plan, x.Done)
	return err
}

func newNodeAdd() *cobra.Command {
	var a nodeAdmin
	n := &watershedv1.AddNodeRequest{}
	cmd := a.command("add", "Admit a node to a region",
		"Admit a node to the region of the node that answers. It takes part as soon as it runs, with join: true in its\n"+
			"configuration, and has caught up; then it gets its share of replicas. The id of a node that was removed is never\n"+
			"taken again: a machine whose disk was lost comes back under another one.", "active",
		func(ctx context.Context, c *client.Client, id string) (*watershedv1.NodeResponse, error) {
			n.Id = id
			return c.AddNode(ctx, n)
		})
	cmd.Example = "  watershed node add n4 --raft 10.0.1.4:7400 --grpc 10.0.1.4:7401 --http 10.0.1.4:7402 --zone rack-4 --endpoint 10.0.1.1:7401"
	for _, x := range [...]struct {
		to         *string
		name, what string
	}{{&n.Raft, "raft", "Raft port"}, {&n.Grpc, "grpc", "gRPC port"}, {&n.Http, "http", "HTTP port"}} {
		cmd.Flags().StringVar(x.to, x.name, "", "HOST:PORT of the node's "+x.what+", as the others reach it")
		if err := cmd.MarkFlagRequired(x.name); err != nil {
			panic(err)
		}
	}
	cmd.Flags().StringVar(&n.Zone, "zone", "", "what fails as one, such as a rack (default: the node is a zone of its own)")
	cmd.Flags().Uint32Var(&n.Weight, "weight", 1, "the node's share of replicas and leaders")
	return cmd
}

func newNodeDrain() *cobra.Command {
	var a nodeAdmin
	cmd := a.command("drain", "Move a node's replicas to other nodes",
		"Have all replicas of a node move to the other nodes of its region. It is refused where those are too few.", "draining",
		func(ctx context.Context, c *client.Client, id string) (*watershedv1.NodeResponse, error) {
			return c.DrainNode(ctx, id)
		})
	cmd.Example = "  watershed node drain n1 --wait --timeout 10m --endpoint 10.0.1.2:7401"
	return cmd
}

func newNodeRemove() *cobra.Command {
	var a nodeAdmin
	cmd := a.command("remove", "Drain a node and remove it for good",
		"Drain a node, which need not be up, and then remove it from its region for good: it is turned away by name if it\n"+
			"comes back. It is refused, with the shards, where a shard has no majority without the node.", "removed",
		func(ctx context.Context, c *client.Client, id string) (*watershedv1.NodeResponse, error) {
			return c.RemoveNode(ctx, id)
		})
	cmd.Example = "  watershed node remove n1 --wait --timeout 10m --endpoint 10.0.1.2:7401"
	return cmd
}
