package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/watershed-db/watershed/proto/client"
)

// Exit statuses.
const (
	statusOK          = 0
	statusFailure     = 1 // explained in one line on standard error
	statusUsage       = 2 // wrong usage
	statusUnknown     = 3 // of a write: whether it was taken is not known
	statusInterrupted = 130
)

// usageError marks wrong usage of the command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }

func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exactArgs is cobra.ExactArgs as wrong usage.
func exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return usagef("%s takes %d %s, not %d", cmd.CommandPath(), n, plural(n, "argument"), len(args))
		}
		return nil
	}
}

// newRoot returns the command with all its subcommands.
func newRoot() *cobra.Command {
	root := group(&cobra.Command{
		Use:   "watershed",
		Short: "Geo-replicated, active-active state for event streams",
		Long: "Watershed keeps the same windowed aggregates of event streams in several regions at once: each takes\n" +
			"events locally, goes on when it is cut off, and agrees with the others to the bit once they meet again.",
		Example: "  watershed run --job job.yaml --input edits=edits.jsonl.gz\n" +
			"  watershed job apply job.yaml --endpoint 127.0.0.1:7001\n" +
			"  watershed query edits --endpoint 127.0.0.1:7001 --closed",
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	})
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%s: %w", cmd.CommandPath(), err)}
	})
	root.AddCommand(newRun(), newJob(), newTable(), newQuery(), newWatch(), newTopology(), newOwner(), newConflicts(), newShard(), newCheckpoint(), newSavepoint(), newUpgrade(),
		newVersion(), newCompletion())
	root.AddCommand(newNode(), newDev(), newDemo(), newEmbeddedKafka())
	return root
}

// execute runs one command line and returns its exit status. What went wrong goes to stderr in one line.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return statusOK
	}
	if missing := cmd.ValidateRequiredFlags(); missing != nil { // of which cobra makes an error of no type
		err = usageError{fmt.Errorf("%s: %w", cmd.CommandPath(), missing)}
	}
	var usage usageError
	switch {
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "watershed: %s; usage: %s (see --help)\n", oneLine(err), cmd.UseLine())
		return statusUsage
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		fmt.Fprintln(stderr, "watershed: interrupted")
		return statusInterrupted
	}
	fmt.Fprintf(stderr, "watershed: %s\n", oneLine(err))
	if errors.Is(err, client.ErrOutcomeUnknown) {
		return statusUnknown
	}
	return statusFailure
}

// oneLine returns an error's text without line breaks.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
