package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/watershed-db/watershed/cmd/watershed/internal/output"
	"github.com/watershed-db/watershed/proto/client"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/strict"
)

func newTable() *cobra.Command {
	return group(&cobra.Command{
		Use:   "table",
		Short: "Make, list, show and drop tables; read and write their values",
		Example: "  watershed table apply visits.yaml --endpoint 127.0.0.1:7001\n" +
			"  watershed table incr visits home --endpoint 127.0.0.1:7001",
	}, newTableApply(), newTableList(), newTableShow(), newTableDrop(), newTableGet(), newTablePut(), newTableCAS(), newTableDelete(),
		newTableIncr(+1), newTableIncr(-1), newTableAdd(), newTableRemove(), newTableScan())
}

// tableJSON is a table as it is printed.
type tableJSON struct {
	Table      string  `json:"table"`
	ID         string  `json:"id"`
	Type       string  `json:"type"`
	Durability *string `json:"durability"` // null: not owned
	TTL        *string `json:"ttl"`        // null: values stay
	MaxBytes   uint32  `json:"max_bytes"`
}

// shownTableJSON is a table with its file.
type shownTableJSON struct {
	tableJSON
	File string `json:"file"`
}

func newTableJSON(t *watershedv1.Table) tableJSON {
	out := tableJSON{Table: t.GetName(), ID: generationText(t.GetId()), Type: t.GetType(), MaxBytes: t.GetMaxBytes()}
	if d := t.GetDurability(); d != "" {
		out.Durability = &d
	}
	if t.GetTtlMs() > 0 {
		ttl := strict.FormatDuration(t.GetTtlMs())
		out.TTL = &ttl
	}
	return out
}

// cells are the columns of tableHeader.
func (t tableJSON) cells() []string {
	durability, ttl := "", ""
	if t.Durability != nil {
		durability = *t.Durability
	}
	if t.TTL != nil {
		ttl = *t.TTL
	}
	return []string{t.Table, t.Type, durability, ttl, strconv.FormatUint(uint64(t.MaxBytes), 10), t.ID}
}

var tableHeader = []string{"TABLE", "TYPE", "DURABILITY", "TTL", "MAX BYTES", "ID"}

// tableApplication is what came of applying one table.
type tableApplication struct {
	Table   string   `json:"table"`
	ID      string   `json:"id"`
	Changed bool     `json:"changed"`
	Regions []string `json:"regions"` // have it
	Missing []string `json:"missing"` // could not be reached and will learn of it
}

func newTableApply() *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use:   "apply FILE...",
		Short: "Make tables in every region",
		Long: "Apply files of tables: each table is in every region that can be reached when this returns, the others are\n" +
			"named and learn of it later. The same again changes nothing. A file that changes what a table means is refused.\n" +
			"If any file has a problem, none is applied.",
		Example: "  watershed table apply drivers.yaml --endpoint 127.0.0.1:7001",
		Args:    someArgs,
		RunE: func(cmd *cobra.Command, files []string) error {
			texts, err := readFiles("table", files)
			if err != nil {
				return err
			}
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				return applyTables(ctx, cmd, c, f, files, texts)
			})
		},
	}
	o.flags(cmd, time.Minute, "how long to try, by file")
	return cmd
}

func applyTables(ctx context.Context, cmd *cobra.Command, c *client.Client, f output.Format, files []string, texts [][]byte) error {
	var problems []string
	for i, name := range files {
		found, err := c.ValidateTable(ctx, name, texts[i])
		if err != nil {
			return fmt.Errorf("validate %s: %w", name, err)
		}
		problems = append(problems, found.GetProblems()...)
	}
	if len(problems) > 0 {
		return fmt.Errorf("nothing was applied: %s", strings.Join(problems, "\n"))
	}
	var done []tableApplication
	var err error
	for i, name := range files {
		answer, e := c.ApplyTable(ctx, name, texts[i])
		if e != nil {
			err = fmt.Errorf("apply %s: %w", name, e)
			break
		}
		done = append(done, tableApplication{
			Table: answer.GetTable().GetName(), ID: generationText(answer.GetTable().GetId()), Changed: answer.GetChanged(),
			Regions: append([]string{}, answer.GetRegions()...), Missing: append([]string{}, answer.GetMissing()...),
		})
	}
	return errors.Join(printTableApplications(cmd, f, done), err)
}

func printTableApplications(cmd *cobra.Command, f output.Format, done []tableApplication) error {
	if f != output.Table {
		return output.Objects(cmd.OutOrStdout(), f, done)
	}
	if len(done) == 0 {
		return nil
	}
	t := output.NewTable(cmd.OutOrStdout(), "TABLE", "RESULT", "IS IN", "NOT YET IN")
	for _, a := range done {
		result := "unchanged"
		if a.Changed {
			result = "applied"
		}
		t.Add(a.Table, result, listed(a.Regions), listed(a.Missing))
	}
	return t.Flush()
}

func newTableList() *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use:               "list",
		Short:             "List the tables",
		Long:              "List the tables by name, as the region that answers knows them.",
		Example:           "  watershed table list --endpoint 127.0.0.1:7001",
		Args:              exactArgs(0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				tables, err := c.ListTables(ctx)
				if err != nil {
					return fmt.Errorf("list tables: %w", err)
				}
				list := make([]tableJSON, len(tables))
				for i, t := range tables {
					list[i] = newTableJSON(t)
				}
				if f != output.Table {
					return output.Objects(cmd.OutOrStdout(), f, list)
				}
				t := output.NewTable(cmd.OutOrStdout(), tableHeader...)
				for _, x := range list {
					t.Add(x.cells()...)
				}
				return t.Flush()
			})
		},
	}
	o.flags(cmd, 10*time.Second, "how long to try")
	return cmd
}

func newTableShow() *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use:               "show NAME",
		Short:             "Show a table",
		Long:              "Show a table: its type, what its file says of it, and its id. With --output json or jsonl its file too.",
		Example:           "  watershed table show drivers --endpoint 127.0.0.1:7001",
		Args:              exactArgs(1),
		ValidArgsFunction: completeTables(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				answer, err := c.ShowTable(ctx, args[0])
				if err != nil {
					return fmt.Errorf("show %s: %w", args[0], err)
				}
				shown := shownTableJSON{newTableJSON(answer), string(answer.GetFile())}
				if f != output.Table {
					return output.Object(cmd.OutOrStdout(), f, shown)
				}
				t := output.NewTable(cmd.OutOrStdout(), tableHeader...)
				t.Add(shown.cells()...)
				return t.Flush()
			})
		},
	}
	o.flags(cmd, 10*time.Second, "how long to try")
	return cmd
}

func newTableDrop() *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use:   "drop NAME",
		Short: "Drop a table and all its values in every region",
		Long: "Drop a table and all its values in every region, for good. Regions that can't be reached just now are named;\n" +
			"they follow.",
		Example:           "  watershed table drop drivers --endpoint 127.0.0.1:7001",
		Args:              exactArgs(1),
		ValidArgsFunction: completeTables(&o),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				answer, err := c.DropTable(ctx, args[0])
				if err != nil {
					return fmt.Errorf("drop %s: %w", args[0], err)
				}
				if !answer.GetExisted() {
					return fmt.Errorf("there is no table %q", args[0])
				}
				if f != output.Table {
					return output.Object(cmd.OutOrStdout(), f, struct {
						Table   string   `json:"table"`
						Dropped bool     `json:"dropped"`
						Missing []string `json:"missing"`
					}{args[0], true, append([]string{}, answer.GetMissing()...)})
				}
				t := output.NewTable(cmd.OutOrStdout(), "TABLE", "RESULT", "NOT YET IN")
				t.Add(args[0], "dropped", listed(answer.GetMissing()))
				return t.Flush()
			})
		},
	}
	o.flags(cmd, time.Minute, "how long to try")
	return cmd
}

// completeTables completes the first argument with the names of tables, where a node answers at once.
func completeTables(o *connection) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 || len(o.addresses()) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := client.New(o.addresses(), client.WithPatience(time.Second))
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.Close()
		tables, err := c.ListTables(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names := make([]cobra.Completion, len(tables))
		for i, t := range tables {
			names[i] = t.GetName()
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
