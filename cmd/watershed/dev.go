package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/watershed-db/watershed/cmd/watershed/internal/dev"
)

// defaultDevData is the folder of `dev` where none is named.
const defaultDevData = "watershed-data"

func newDev() *cobra.Command {
	var o dev.Options
	var kafka []string
	var partitions int
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole deployment on this machine",
		Long: "Run every region on this machine, each node in a process of its own, with an embedded Kafka for each region\n" +
			"unless --kafka names real brokers. It says where everything listens, and writes the same to\n" +
			"DIR/endpoints.json. The first region owns all shards. Ctrl-C stops it; started again on the same folder it has\n" +
			"the same ports and all its state. A node process that dies stays dead until `watershed dev restart NODE`.",
		Example: "  watershed dev --regions us-east,eu-west --data ./rides --job surge.yaml\n" +
			"  watershed dev restart us-east-2 --data ./rides",
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Kafka, err = dev.ParseKafka(kafka); err != nil {
				return usageError{err}
			}
			o.Partitions = int32(min(partitions, dev.MaxPartitions+1))
			o.Events = cmd.ErrOrStderr()
			return runDev(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&o.Regions, "regions", nil, "the regions; the first owns the shards (default us-east,eu-west)")
	f.IntVar(&o.Nodes, "nodes", 0, "nodes of each region: 1, 3 or 5 (default 3)")
	f.IntVar(&o.Shards, "shards", 0, "how many shards the keys are spread over (default 8)")
	cmd.PersistentFlags().StringVar(&o.Data, "data", defaultDevData, "the folder of all state")
	f.StringArrayVar(&o.Jobs, "job", nil, "a job file to apply; topics that it names and that are missing are made")
	f.IntVar(&partitions, "partitions", 4, "partitions of topics that are made")
	f.StringArrayVar(&kafka, "kafka", nil, "brokers of a region, instead of an embedded Kafka: REGION=HOST:PORT,...")
	f.StringVar(&o.Checkpoints, "checkpoints", "",
		"where checkpoints are kept: s3://BUCKET/PREFIX?endpoint=http://HOST:PORT (default nowhere)")
	f.DurationVar(&o.FlushInterval, "flush-interval", 0, "how long records gather before they are sent to the shards (default 40ms)")
	o.LogBytes = dev.DefaultLogBytes
	f.Var(&o.LogBytes, "log-bytes", "what a shard's Raft log keeps for nodes that lag behind")
	cmd.AddCommand(newDevRestart(&o.Data), newDevLink("cut", "Part two regions of a running deployment", &o.Data, dev.Cut),
		newDevLink("heal", "Join two regions that were cut apart", &o.Data, dev.Heal))
	return cmd
}

func runDev(ctx context.Context, o dev.Options, stdout io.Writer) error {
	started := time.Now()
	d, err := dev.Start(ctx, o)
	if errors.Is(err, dev.ErrOptions) {
		return usageError{err}
	}
	if err != nil && ctx.Err() != nil {
		return nil // stopped before it was up, as cleanly as later
	}
	if err != nil {
		return err
	}
	defer d.Stop()
	if err := describe(stdout, d, time.Since(started)); err != nil {
		return fmt.Errorf("print endpoints: %w", err)
	}
	<-ctx.Done()
	return nil
}

// describe prints where everything listens.
func describe(out io.Writer, d *dev.Deployment, took time.Duration) error {
	e := d.Endpoints()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "REGION\tNODE\tGRPC\tHTTP\tPID\tKAFKA")
	for _, region := range d.Regions() {
		r := e.Regions[region]
		for i, node := range d.Nodes(region) {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", region, node, r.GRPC[i], r.HTTP[i], r.PIDs[i], strings.Join(r.Kafka, ","))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "ready in %s; state and logs are in %s, the above in %s; Ctrl-C stops it\n",
		took.Round(100*time.Millisecond), d.Data(), filepath.Join(d.Data(), "endpoints.json"))
	return err
}

func newDevRestart(data *string) *cobra.Command {
	return &cobra.Command{
		Use:     "restart NODE",
		Short:   "Restart a node of a running deployment, or start it again if it has died",
		Example: "  watershed dev restart us-east-2 --data ./rides",
		Args:    exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return dev.Restart(cmd.Context(), *data, args[0])
		},
	}
}

func newDevLink(name, short string, data *string, order func(ctx context.Context, dir, a, b string) error) *cobra.Command {
	return &cobra.Command{
		Use:     name + " REGION REGION",
		Short:   short,
		Example: "  watershed dev " + name + " us-east eu-west --data ./rides",
		Args:    exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return order(cmd.Context(), *data, args[0], args[1])
		},
	}
}
