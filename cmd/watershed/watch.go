package main

import (
	"bufio"
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/watershed-db/watershed/cmd/watershed/internal/output"
	"github.com/watershed-db/watershed/proto/client"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

func newWatch() *cobra.Command {
	var o connection
	var keys []string
	cmd := &cobra.Command{
		Use:   "watch JOB",
		Short: "Print a row for each change, until interrupted",
		Long: "Print the rows of a job as they change, from now on until interrupted. A row that changes quickly is not\n" +
			"printed at each step. Where the node goes away, another endpoint takes over: what changed in between is not\n" +
			"printed, and a line on standard error says so.",
		Example: "  watershed watch surge --endpoint 127.0.0.1:7001\n" +
			"  watershed watch surge --key cell=dr5reg --output jsonl",
		Args:              exactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := selection(args[0], keys)
			if err != nil {
				return err
			}
			err = o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				return watch(ctx, cmd, c, s, f)
			})
			if err != nil && cmd.Context().Err() != nil {
				return nil // being interrupted is how a watch ends
			}
			return err
		},
	}
	cmd.Flags().StringArrayVar(&keys, "key", nil, "PART=VALUE: rows whose key has this value only; repeatable, all must match")
	o.flags(cmd, 10*time.Second, "how long to try for the watch to begin")
	return cmd
}

func watch(ctx context.Context, cmd *cobra.Command, c *client.Client, s *watershedv1.Selection, f output.Format) error {
	if f == output.JSON {
		return usagef("watch does not end, so that its rows are no single JSON value; want --output table or jsonl")
	}
	watched, err := c.Watch(ctx, s, func(reason error) {
		fmt.Fprintf(cmd.ErrOrStderr(), "watershed: the watch was cut, changes may be missing: %s\n", oneLine(reason))
	})
	if err != nil {
		return fmt.Errorf("watch %s: %w", s.GetJob(), err)
	}
	defer watched.Close()
	w := bufio.NewWriterSize(cmd.OutOrStdout(), 1<<16)
	p := newRowPrinter(w, f, watched.Columns())
	if err := p.settle(w); err != nil {
		return err
	}
	for watched.Next() {
		if err := p.add(watched.Row()); err != nil {
			return err
		}
		if watched.More() {
			continue
		}
		if err := p.settle(w); err != nil {
			return err
		}
	}
	return fmt.Errorf("watch %s: %w", s.GetJob(), watched.Err())
}

// settle prints all rows so far.
func (p *rowPrinter) settle(w *bufio.Writer) error {
	if p.table != nil {
		if err := p.table.Flush(); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
