package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/watershed-db/watershed/cmd/watershed/internal/demo"
	"github.com/watershed-db/watershed/cmd/watershed/internal/output"
)

// errVerdict says that the demo has found something wrong; the verdict itself is on standard output.
var errVerdict = errors.New("the demo found something wrong")

func newDemo() *cobra.Command {
	var o demo.Options
	var format string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show two regions agree to the bit, through kills and cuts",
		Long: "Run two regions of three nodes in a temporary folder under the traffic of a ride-hailing service, kill a node,\n" +
			"cut the regions apart, heal them, and compare every row of both regions with what was sent. The exit status is\n" +
			"1 if anything was lost, counted twice or differs.",
		Example: "  watershed demo --duration 60s\n  watershed demo --output json",
		Args:    exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Duration < demo.MinDuration || o.Duration > time.Hour {
				return usagef("--duration %s: want %s to 1h", o.Duration, demo.MinDuration)
			}
			if o.Rate < 100 || o.Rate > 100_000 {
				return usagef("--rate %d: want 100 to 100000", o.Rate)
			}
			f, err := output.ParseFormat(format, cmd.OutOrStdout())
			if err != nil {
				return usageError{err}
			}
			return runDemo(cmd.Context(), o, f, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.DurationVar(&o.Duration, "duration", time.Minute, "how long everything runs before it is checked")
	f.IntVar(&o.Rate, "rate", 1000, "events a second, over both regions")
	f.StringVar(&format, "output", "", "table, json or jsonl (default: a table on a terminal, else jsonl)")
	return cmd
}

func runDemo(ctx context.Context, o demo.Options, format output.Format, stdout, stderr io.Writer) error {
	o.Progress, o.Terminal = stderr, isTerminal(stderr)
	v, err := demo.Run(ctx, o)
	if err != nil {
		return err
	}
	if format == output.Table {
		_, err = io.WriteString(stdout, v.Table())
	} else {
		err = output.Object(stdout, format, v)
	}
	if err != nil {
		return fmt.Errorf("print the verdict: %w", err)
	}
	if !v.OK {
		return fmt.Errorf("%w: %s", errVerdict, v.Problems[0])
	}
	return nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
