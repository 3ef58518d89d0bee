package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/watershed-db/watershed/cmd/watershed/internal/output"
	"github.com/watershed-db/watershed/proto/client"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

func newConflicts() *cobra.Command {
	return group(&cobra.Command{
		Use:   "conflicts",
		Short: "List the writes that a takeover cost, do them again or give them up",
		Long: "The divergence ledger of each region holds what clients wrote to owned tables there and a new owner did not have. Nothing\n" +
			"leaves it by itself but what turns out to stand.",
		Example: "  watershed conflicts list --endpoint 127.0.0.1:7001",
	}, newConflictsList(), newConflictsShow(), newConflictsReplay(), newConflictsDiscard())
}

// conflictJSON is a ledger entry as it is printed.
type conflictJSON struct {
	ID        string   `json:"id"`
	Regions   []string `json:"regions"` // whose ledgers hold it
	Shard     uint32   `json:"shard"`
	Table     string   `json:"table"` // "" where it was dropped
	Key       string   `json:"key"`
	Operation string   `json:"operation"`
	Time      *string  `json:"time"`
	Epoch     string   `json:"epoch"`
	Position  uint64   `json:"position"`
	By        string   `json:"by_epoch"`
	Bytes     uint64   `json:"value_bytes"`
	Doubt     bool     `json:"doubt"` // the standing history no longer tells whether it holds it
	Settled   bool     `json:"settled"`
	Reason    string   `json:"reason,omitempty"`
}

func newConflictJSON(c *watershedv1.Conflict) conflictJSON {
	out := conflictJSON{ID: c.GetId(), Regions: c.GetRegions(), Shard: c.GetShard(), Table: c.GetTable(), Operation: c.GetOperation(),
		Epoch: epochText(c.GetEpoch()), Position: c.GetPosition(), By: epochText(c.GetByEpoch()), Bytes: c.GetValueBytes(),
		Doubt: c.GetDoubt(), Settled: c.GetSettled(), Reason: c.GetReason()}
	if c.GetKey() != nil {
		out.Key, out.Time = keyText(c.GetKey()), output.TimeOrNull(c.GetTimeMs())
	}
	return out
}

// keyText prints a key of a table.
func keyText(v *watershedv1.Value) string {
	switch k := v.GetKind().(type) {
	case *watershedv1.Value_Bool:
		return strconv.FormatBool(k.Bool)
	case *watershedv1.Value_Int:
		return strconv.FormatInt(k.Int, 10)
	case *watershedv1.Value_Float:
		return strconv.FormatFloat(k.Float, 'g', -1, 64)
	case *watershedv1.Value_Big:
		return k.Big
	case *watershedv1.Value_Text:
		return k.Text
	}
	return "null"
}

func (c conflictJSON) cells() []string {
	state := "open"
	if c.Settled {
		state = "discarded: " + c.Reason
	} else if c.Doubt {
		state = "open, may stand"
	}
	at := ""
	if c.Time != nil {
		at = *c.Time
	}
	return []string{c.ID, c.Table, c.Key, c.Operation, strconv.FormatUint(c.Bytes, 10), at, strings.Join(c.Regions, ", "), state}
}

func newConflictsList() *cobra.Command {
	var o connection
	var settled bool
	cmd := &cobra.Command{
		Use:               "list",
		Short:             "List what the regions' ledgers hold",
		Example:           "  watershed conflicts list --settled --endpoint 127.0.0.1:7001",
		Args:              exactArgs(0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				answer, err := c.Conflicts(ctx, &watershedv1.ConflictsRequest{Settled: settled})
				if err != nil {
					return fmt.Errorf("conflicts list: %w", err)
				}
				if err := printConflicts(cmd.OutOrStdout(), f, answer); err != nil {
					return err
				}
				for _, region := range answer.GetMissing() {
					fmt.Fprintf(cmd.ErrOrStderr(), "region %s did not answer: what its ledger holds is not listed\n", region)
				}
				if answer.GetMore() {
					fmt.Fprintln(cmd.ErrOrStderr(), "there is more than is listed")
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&settled, "settled", false, "also those that were discarded")
	o.flags(cmd, 10*time.Second, "how long to try")
	return cmd
}

func printConflicts(w io.Writer, f output.Format, answer *watershedv1.ConflictsResponse) error {
	list := []conflictJSON{}
	for _, c := range answer.GetConflicts() {
		list = append(list, newConflictJSON(c))
	}
	switch f {
	case output.JSON:
		return output.Object(w, f, struct {
			Conflicts []conflictJSON `json:"conflicts"`
			Missing   []string       `json:"missing"`
		}{list, append([]string{}, answer.GetMissing()...)})
	case output.Lines:
		return output.Objects(w, f, list)
	}
	t := output.NewTable(w, "ID", "TABLE", "KEY", "OPERATION", "BYTES", "TIME", "REGIONS", "STATE")
	for _, c := range list {
		t.Add(c.cells()...)
	}
	return t.Flush()
}

// shownConflictJSON is a ledger entry with its values: as text, or as base64 where they are none.
type shownConflictJSON struct {
	conflictJSON
	Value  any `json:"value"`  // null: a delete
	Before any `json:"before"` // null: there was none
}

func lostValue(b []byte) any {
	if utf8.Valid(b) {
		return string(b)
	}
	return b
}

func newConflictsShow() *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use:               "show ID",
		Short:             "Show a lost write, and what it replaced",
		Example:           "  watershed conflicts show 3-2@1-17 --endpoint 127.0.0.1:7001",
		Args:              exactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				answer, err := c.Conflicts(ctx, &watershedv1.ConflictsRequest{Id: args[0], Settled: true})
				if err != nil {
					return fmt.Errorf("conflicts show: %w", err)
				}
				if len(answer.GetConflicts()) == 0 {
					return fmt.Errorf("conflicts show: no ledger that could be asked holds %s", args[0])
				}
				x := answer.GetConflicts()[0]
				out := shownConflictJSON{conflictJSON: newConflictJSON(x)}
				if x.GetOperation() == "put" {
					out.Value = lostValue(x.GetValue())
				}
				if x.GetHadBefore() {
					out.Before = lostValue(x.GetBefore())
				}
				if f == output.Table {
					f = output.JSON
				}
				return output.Object(cmd.OutOrStdout(), f, out)
			})
		},
	}
	o.flags(cmd, 10*time.Second, "how long to try")
	return cmd
}

func newConflictsReplay() *cobra.Command {
	var o connection
	var anyway bool
	cmd := &cobra.Command{
		Use:   "replay ID",
		Short: "Do a lost write again",
		Long: "Do a lost write again at the shard's owner. What it expected of the row it expects again: exit status 1 if that does not\n" +
			"hold. It counts once, also beside a retry of the client that made it.",
		Example:           "  watershed conflicts replay 3-2@1-17 --endpoint 127.0.0.1:7001",
		Args:              exactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(cmd, func(ctx context.Context, c *client.Client, _ output.Format) error {
				answer, err := c.ReplayConflict(ctx, args[0], anyway)
				if err != nil {
					return fmt.Errorf("conflicts replay: %w", err)
				}
				if !answer.GetApplied() {
					return fmt.Errorf("conflicts replay: region %s: %s", answer.GetOwner(), answer.GetVerdict())
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&anyway, "anyway", false, "whatever the row is by now")
	o.flags(cmd, 10*time.Second, "how long to try")
	return cmd
}

func newConflictsDiscard() *cobra.Command {
	var o connection
	var reason string
	cmd := &cobra.Command{
		Use:               "discard ID --reason TEXT",
		Short:             "Give a lost write up",
		Example:           "  watershed conflicts discard 3-2@1-17 --reason 'the driver has logged off' --endpoint 127.0.0.1:7001",
		Args:              exactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if strings.TrimSpace(reason) == "" {
				return usagef("conflicts discard needs --reason TEXT")
			}
			return o.with(cmd, func(ctx context.Context, c *client.Client, _ output.Format) error {
				answer, err := c.DiscardConflict(ctx, args[0], reason)
				if err != nil {
					return fmt.Errorf("conflicts discard: %w", err)
				}
				for _, region := range answer.GetMissing() {
					fmt.Fprintf(cmd.ErrOrStderr(), "region %s did not answer: its ledger may hold it still\n", region)
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why: it stays in the ledger")
	o.flags(cmd, 10*time.Second, "how long to try")
	return cmd
}
