package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/watershed-db/watershed/cmd/watershed/internal/output"
	"github.com/watershed-db/watershed/proto/client"
)

func newShard() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:     "shard",
		Short:   "Rebuild a node's damaged replicas",
		Example: "  watershed shard rebuild --node eu-1 --endpoint 127.0.0.1:7001",
	})
	cmd.AddCommand(newShardRebuild())
	return cmd
}

func newShardRebuild() *cobra.Command {
	var o connection
	var node string
	var shards []uint
	var whole bool
	cmd := &cobra.Command{
		Use:   "rebuild",
		Short: "Drop a node's damaged replicas and take them anew from their leaders",
		Long: "Drop what a node holds of shards that it found damaged, and take it anew from the nodes that lead them; topology\n" +
			"names them. It ends when they have caught up. The other nodes go on serving meanwhile. Where another node's disk\n" +
			"is bad, too, rebuild one after the other: a shard needs a majority of its replicas whole.",
		Example: "  watershed shard rebuild --endpoint 127.0.0.1:7001\n" +
			"  watershed shard rebuild --node eu-2 --shard 3 --endpoint 127.0.0.1:7001",
		Args:              exactArgs(0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if whole && len(shards) == 0 {
				return usagef("--whole needs --shard: it drops replicas that nothing is known to be wrong with")
			}
			var list []uint32
			for _, s := range shards {
				list = append(list, uint32(s))
			}
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				rebuilt, err := c.Rebuild(ctx, node, list, whole)
				if err != nil {
					return fmt.Errorf("shard rebuild: %w", err)
				}
				if f != output.Table {
					return output.Object(cmd.OutOrStdout(), f, struct {
						Rebuilt []uint32 `json:"rebuilt"`
					}{append([]uint32{}, rebuilt...)})
				}
				if len(rebuilt) == 0 {
					fmt.Fprintln(cmd.OutOrStdout(), "nothing is damaged")
				}
				for _, s := range rebuilt {
					fmt.Fprintf(cmd.OutOrStdout(), "shard %d is rebuilt\n", s)
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "the node whose replicas to rebuild (default: the one that answers)")
	cmd.Flags().UintSliceVar(&shards, "shard", nil, "the shards to rebuild (default: all that are damaged)")
	cmd.Flags().BoolVar(&whole, "whole", false, "rebuild replicas that are not known to be damaged, too")
	o.flags(cmd, 10*time.Minute, "how long to try")
	return cmd
}
