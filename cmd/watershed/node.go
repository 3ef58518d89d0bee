package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/watershed-db/watershed/cmd/watershed/internal/parts"
	"github.com/watershed-db/watershed/region"
	"github.com/watershed-db/watershed/region/config"
)

func newNode() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "node --config FILE",
		Short: "Run one node of a region",
		Long: "Run one node of a region until SIGTERM or Ctrl-C. The configuration file is described field by field in\n" +
			"deploy/node.yaml; whatever it says wrong is told with its line, and then nothing is started.",
		Example: "  watershed node --config /etc/watershed/node.yaml",
		Args:    exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usagef("%s needs --config FILE", cmd.CommandPath())
			}
			return runNode(cmd.Context(), file, cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "the node's configuration file")
	cmd.AddCommand(newNodeAdd(), newNodeDrain(), newNodeRemove())
	return cmd
}

// runNode runs a node until ctx ends.
func runNode(ctx context.Context, file string, stderr io.Writer) error {
	c, err := readConfig(file)
	if err != nil {
		return err
	}
	logger := nodeLogger(c, stderr)
	err = region.Restore(ctx, c, logger)
	if errors.Is(err, region.ErrNotEmpty) {
		logger.Info("checkpoints.restore is not looked at: the node has data", "data", c.Data)
		err = nil
	}
	if err != nil {
		return err
	}
	p := parts.New(c, logger)
	defer p.Close()
	n, err := region.Open(region.Options{
		Config: c, Version: version().Version, Parts: p.Parts(), Logger: logger,
		Fatal: func(err error) { end(logger, err) },
	})
	if err != nil {
		return err
	}
	return n.Run(ctx)
}

// lastWords is how long the line that says why a node ends may take: its output may be on the disk that hangs.
const lastWords = time.Second

// end says why the process ends, and ends it at once: nothing that it holds can be trusted.
func end(logger hclog.Logger, err error) {
	said := make(chan struct{})
	go func() {
		defer close(said)
		logger.Error("the node cannot go on", "error", err)
	}()
	select {
	case <-said:
	case <-time.After(lastWords):
	}
	os.Exit(statusFailure)
}

// readConfig reads a node's configuration file.
func readConfig(file string) (config.Config, error) {
	src, err := os.ReadFile(file)
	if err != nil {
		return config.Config{}, fmt.Errorf("configuration: %w", err)
	}
	return config.Parse(file, src)
}

// nodeLogger logs as a node's configuration says.
func nodeLogger(c config.Config, w io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: c.Node, Level: hclog.LevelFromString(c.Log.Level), JSONFormat: c.Log.Format == "json", Output: w,
	})
}
