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

func newCheckpoint() *cobra.Command {
	return group(&cobra.Command{
		Use:   "checkpoint",
		Short: "Make and list checkpoints of a region, and begin a region with one",
		Long: "Checkpoints are copies of a region's state in an object store, made every few seconds where the nodes'\n" +
			"configuration has checkpoints.url. Each is consistent over all shards: sources go on from the points in it.",
		Example: "  watershed checkpoint list --endpoint 127.0.0.1:7001\n" +
			"  watershed checkpoint restore latest --config /etc/watershed/node.yaml",
	}, newCheckpointNow(), newCheckpointList(), newCheckpointRestore(), newCheckpointFollow())
}

func newSavepoint() *cobra.Command {
	return group(&cobra.Command{
		Use:     "savepoint",
		Short:   "Make and remove checkpoints that stay until they are deleted",
		Example: "  watershed savepoint create before-upgrade --endpoint 127.0.0.1:7001",
	}, newSavepointCreate(), newSavepointList(), newSavepointDelete())
}

// checkpointWithin is how long a checkpoint may take where --timeout does not say.
const checkpointWithin = 10 * time.Minute

func newCheckpointNow() *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use:               "now",
		Short:             "Make a checkpoint and wait until it is whole",
		Long:              "Make a checkpoint of every shard as it is now, and wait until all of it is in the object store.",
		Example:           "  watershed checkpoint now --endpoint 127.0.0.1:7001",
		Args:              exactArgs(0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return makeCheckpoint(cmd, &o, "") },
	}
	o.flags(cmd, checkpointWithin, "how long to try")
	return cmd
}

func newSavepointCreate() *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a checkpoint that stays until it is deleted",
		Long: "Make a checkpoint of every shard as it is now, under a name, and wait until all of it is in the object store.\n" +
			"Retention leaves it alone.",
		Example:           "  watershed savepoint create before-upgrade --endpoint 127.0.0.1:7001",
		Args:              exactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return makeCheckpoint(cmd, &o, args[0]) },
	}
	o.flags(cmd, checkpointWithin, "how long to try")
	return cmd
}

func makeCheckpoint(cmd *cobra.Command, o *connection, savepoint string) error {
	return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
		made, err := c.Checkpoint(ctx, savepoint)
		if err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
		return printCheckpoints(cmd.OutOrStdout(), f, []*watershedv1.Checkpoint{made})
	})
}

func newCheckpointList() *cobra.Command {
	return listCheckpoints("List checkpoints and savepoints, the newest checkpoint last", "checkpoint",
		func(*watershedv1.Checkpoint) bool { return true })
}

func newSavepointList() *cobra.Command {
	return listCheckpoints("List savepoints by name", "savepoint",
		func(c *watershedv1.Checkpoint) bool { return c.GetSavepoint() != "" })
}

func listCheckpoints(short, parent string, which func(*watershedv1.Checkpoint) bool) *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use:               "list",
		Short:             short,
		Long:              short + ", as the object store of the answering node's region holds them.",
		Example:           "  watershed " + parent + " list --endpoint 127.0.0.1:7001",
		Args:              exactArgs(0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				answer, err := c.Checkpoints(ctx)
				if err != nil {
					return fmt.Errorf("checkpoints: %w", err)
				}
				warn(cmd, answer.GetPlace(), answer.GetProblems())
				var list []*watershedv1.Checkpoint
				for _, x := range answer.GetCheckpoints() {
					if which(x) {
						list = append(list, x)
					}
				}
				return printCheckpoints(cmd.OutOrStdout(), f, list)
			})
		},
	}
	o.flags(cmd, time.Minute, "how long to try")
	return cmd
}

func newSavepointDelete() *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use:               "delete NAME",
		Short:             "Delete a savepoint",
		Long:              "Delete a savepoint. What nothing else needs of it is removed from the object store some hours later.",
		Example:           "  watershed savepoint delete before-upgrade --endpoint 127.0.0.1:7001",
		Args:              exactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(cmd, func(ctx context.Context, c *client.Client, _ output.Format) error {
				if err := c.DeleteSavepoint(ctx, args[0]); err != nil {
					return fmt.Errorf("savepoint: %w", err)
				}
				return nil
			})
		},
	}
	o.flags(cmd, time.Minute, "how long to try")
	return cmd
}

type checkpointJSON struct {
	ID        uint64   `json:"id"`
	Savepoint string   `json:"savepoint,omitempty"`
	Region    string   `json:"region"`
	Member    uint32   `json:"member"`
	Time      string   `json:"time"`
	Bytes     int64    `json:"bytes"`
	Indexes   []uint64 `json:"applied_indexes"` // by shard
}

func printCheckpoints(w io.Writer, f output.Format, list []*watershedv1.Checkpoint) error {
	if f == output.Table {
		table := output.NewTable(w, "ID", "SAVEPOINT", "REGION", "MEMBER", "TIME", "BYTES")
		for _, c := range list {
			table.Add(strconv.FormatUint(c.GetId(), 10), c.GetSavepoint(), c.GetRegion(), strconv.FormatUint(uint64(c.GetMember()), 10),
				timeOf(c), strconv.FormatInt(c.GetBytes(), 10))
		}
		return table.Flush()
	}
	objects := make([]checkpointJSON, 0, len(list))
	for _, c := range list {
		objects = append(objects, checkpointJSON{
			c.GetId(), c.GetSavepoint(), c.GetRegion(), c.GetMember(), timeOf(c), c.GetBytes(), c.GetIndexes(),
		})
	}
	return output.Objects(w, f, objects)
}

func timeOf(c *watershedv1.Checkpoint) string {
	return time.UnixMilli(c.GetTimeMs()).UTC().Format(time.RFC3339Nano)
}
