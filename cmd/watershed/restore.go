package main

import (
	"context"
	"errors"
	"fmt"
	"os"
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

func restore(cmd *cobra.Command, file, which string, replace bool) error {
	src, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	c, err := config.Parse(file, src)
	if err != nil {
		return err
	}
	if c.Checkpoints.URL == "" {
		return fmt.Errorf("%s lacks checkpoints.url: there is nothing to restore from", file)
	}
	c.Checkpoints.Restore = which
	logger := hclog.New(&hclog.LoggerOptions{Name: c.Node, Level: hclog.LevelFromString(c.Log.Level), Output: cmd.ErrOrStderr()})
	err = restoreNode(cmd.Context(), c, replace, logger)
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
