package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/watershed-db/watershed/region"
	"github.com/watershed-db/watershed/region/config"
)

func newCheckpointRestore() *cobra.Command {
	var file string
	var replace bool
	cmd := &cobra.Command{
		Use:   "restore ID|NAME|latest --config FILE",
		Short: "Have a node that does not run begin with a checkpoint",
		Long: "Fetch a checkpoint or savepoint into the data folder of a node that does not run, before it first starts; do so\n" +
			"on every node of the region, with the same checkpoint. How many nodes there are, and what they are called, does\n" +
			"not matter. The region needs a new member number in every region's configuration. The same happens at the first\n" +
			"start of a node whose configuration has checkpoints.restore. A node that has data is refused, unless --replace\n" +
			"says to move that aside.",
		Example: "  watershed checkpoint restore latest --config /etc/watershed/node.yaml",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" {
				return usagef("%s needs --config FILE", cmd.CommandPath())
			}
			return restore(cmd, file, args[0], replace)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "the node's configuration file")
	cmd.Flags().BoolVar(&replace, "replace", false, "move data that is there aside")
	return cmd
}

func newCheckpointFollow() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "follow --config FILE",
		Short: "Keep the newest checkpoint on a standby node's disk",
		Long: "Keep the newest checkpoint of a region in the data folder of a node that does not run, until interrupted: a\n" +
			"standby for the region's nodes, of any number and names. When the region is gone, end this and restore: nearly\n" +
			"all of the checkpoint is there already. The configuration has the region's name and its next member number.",
		Example: "  watershed checkpoint follow --config /etc/watershed/standby.yaml",
		Args:    exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usagef("%s needs --config FILE", cmd.CommandPath())
			}
			c, err := readConfig(file)
			if err != nil {
				return err
			}
			return region.Follow(cmd.Context(), c, nodeLogger(c, cmd.ErrOrStderr()), nil)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "the node's configuration file")
	return cmd
}

func restore(cmd *cobra.Command, file, which string, replace bool) error {
	c, err := readConfig(file)
	if err != nil {
		return err
	}
	if c.Checkpoints.URL == "" {
		return fmt.Errorf("%s lacks checkpoints.url: there is nothing to restore from", file)
	}
	c.Checkpoints.Restore = which
	err = restoreNode(cmd.Context(), c, replace, nodeLogger(c, cmd.ErrOrStderr()))
	if errors.Is(err, region.ErrNotEmpty) {
		return fmt.Errorf("%w; --replace moves it aside", err)
	}
	return err
}

func restoreNode(ctx context.Context, c config.Config, replace bool, logger hclog.Logger) error {
	err := region.Restore(ctx, c, logger)
	if !errors.Is(err, region.ErrNotEmpty) || !replace {
		return err
	}
	aside, err := region.MoveAside(c, time.Now())
	if err != nil {
		return err
	}
	logger.Info("the data that was there is kept", "as", aside)
	return region.Restore(ctx, c, logger)
}
