package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/watershed-db/watershed/cmd/watershed/internal/output"
	"github.com/watershed-db/watershed/proto/client"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// queryOptions are the flags of `watershed query`.
type queryOptions struct {
	connection
	keys        []string
	from, to    string
	closed      bool
	consistency string
	top         uint32
	by          string
}

func newQuery() *cobra.Command {
	var o queryOptions
	cmd := &cobra.Command{
		Use:   "query JOB",
		Short: "Print the rows of a job",
		Long: "Print the rows of a job over all shards, ordered by window end, window start and key, as this moment has\n" +
			"them; open windows too, unless --closed leaves them out. If the answer breaks off, that is said and the exit\n" +
			"status is 1. With --output json the rows come with what they reflect: offsets and watermark by shard.",
		Example: "  watershed query surge --endpoint 127.0.0.1:7001 --closed\n" +
			"  watershed query surge --key cell=dr5reg --from 2026-01-01T00:00:00Z --to 2026-01-02T00:00:00Z\n" +
			"  watershed query surge --top 3 --by requests --output json",
		Args:              exactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			request, err := o.request(args[0])
			if err != nil {
				return err
			}
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				if err := query(ctx, c, request, f, cmd.OutOrStdout(), cmd.ErrOrStderr()); err != nil {
					return fmt.Errorf("query %s: %w", args[0], err)
				}
				return nil
			})
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.keys, "key", nil, "PART=VALUE: rows whose key has this value only; repeatable, all must match")
	f.StringVar(&o.from, "from", "", "windows that start at this time (RFC 3339) or later")
	f.StringVar(&o.to, "to", "", "windows that start before this time (RFC 3339)")
	f.BoolVar(&o.closed, "closed", false, "only windows that end at or before their shard's watermark")
	f.StringVar(&o.consistency, "consistency", "linearizable",
		"linearizable: reflects all that the region has acknowledged; local: from any replica, perhaps a little old")
	f.Uint32Var(&o.top, "top", 0, "only the N rows of each window with the greatest value of --by")
	f.StringVar(&o.by, "by", "", "the aggregate or derived value that --top goes by")
	o.flags(cmd, 10*time.Second, "how long to try for the answer to begin")
	return cmd
}

func (o *queryOptions) request(job string) (*watershedv1.ScanRequest, error) {
	s, err := selection(job, o.keys)
	if err != nil {
		return nil, err
	}
	s.Closed = o.closed
	if s.FromMs, err = timeFlag("--from", o.from); err != nil {
		return nil, err
	}
	if s.ToMs, err = timeFlag("--to", o.to); err != nil {
		return nil, err
	}
	switch o.consistency {
	case "linearizable":
		s.Consistency = watershedv1.Consistency_CONSISTENCY_LINEARIZABLE
	case "local":
		s.Consistency = watershedv1.Consistency_CONSISTENCY_LOCAL
	default:
		return nil, usagef("--consistency %q: want linearizable or local", o.consistency)
	}
	if (o.top > 0) != (o.by != "") {
		return nil, usagef("--top N and --by NAME need each other")
	}
	return &watershedv1.ScanRequest{Selection: s, Top: o.top, By: o.by}, nil
}

// selection makes the part of a request that query and watch share.
func selection(job string, keys []string) (*watershedv1.Selection, error) {
	s := &watershedv1.Selection{Job: job}
	for _, k := range keys {
		name, value, ok := strings.Cut(k, "=")
		if !ok || name == "" {
			return nil, usagef("--key %q: want PART=VALUE", k)
		}
		s.Key = append(s.Key, &watershedv1.KeyFilter{
			Name: name, Value: &watershedv1.Value{Kind: &watershedv1.Value_Text{Text: value}},
		})
	}
	return s, nil
}

// timeFlag returns a time in ms, rounded up: windows begin at whole milliseconds.
func timeFlag(name, value string) (*int64, error) {
	if value == "" {
		return nil, nil
	}
	t, err := time.Parse(time.RFC3339Nano, value)
	if err != nil {
		return nil, usagef("%s %q: want a time such as 2026-01-31T12:00:00Z", name, value)
	}
	ms := t.Add(time.Millisecond - time.Nanosecond).UnixMilli()
	return &ms, nil
}

// query prints the rows as they come.
func query(ctx context.Context, c *client.Client, request *watershedv1.ScanRequest, f output.Format, stdout, stderr io.Writer) error {
	scan, err := c.Scan(ctx, request)
	if err != nil {
		return err
	}
	defer scan.Close()
	w := bufio.NewWriterSize(stdout, 1<<16)
	p := newRowPrinter(w, f, scan.Columns())
	for scan.Next() {
		if err := p.add(scan.Row()); err != nil {
			return err
		}
	}
	err = scan.Err()
	if e := p.finish(scan.Summary()); err == nil {
		err = e
	}
	if e := w.Flush(); err == nil && e != nil {
		err = fmt.Errorf("print: %w", e)
	}
	if err == nil && f == output.Table {
		footer(stderr, p.rows, scan.Summary().GetShards())
	}
	return err
}

// footer says what a table reflects, where that does not go without saying.
func footer(stderr io.Writer, rows int, shards []*watershedv1.ShardState) {
	r := output.NewReflects(shards)
	watermark := "no watermark yet"
	if r.Watermark != nil {
		watermark = "watermark " + *r.Watermark
	}
	fmt.Fprintf(stderr, "%d rows, %s", rows, watermark)
	var stale int64
	for _, s := range r.Shards {
		stale = max(stale, s.Staleness)
	}
	if stale > 0 {
		fmt.Fprintf(stderr, ", up to %s old", time.Duration(stale)*time.Millisecond)
	}
	if len(r.Missing) > 0 {
		fmt.Fprintf(stderr, ", cut off from %s", strings.Join(r.Missing, ", "))
	}
	fmt.Fprintln(stderr)
}

// rowPrinter prints the rows of one query: a table, lines, or within an envelope that says what they reflect.
type rowPrinter struct {
	w      io.Writer
	format output.Format
	rows   int
	enc    *output.Rows
	table  *output.TableWriter
	line   []byte
}

func newRowPrinter(w io.Writer, f output.Format, c *watershedv1.Columns) *rowPrinter {
	p := &rowPrinter{w: w, format: f, enc: output.NewRows(c)}
	if f == output.Table {
		p.table = output.NewTable(w, p.enc.Header()...)
	}
	return p
}

func (p *rowPrinter) add(row *watershedv1.Row) error {
	p.rows++
	if p.format == output.Table {
		cells, err := p.enc.Cells(row)
		if err != nil {
			return err
		}
		p.table.Add(cells...)
		return nil
	}
	p.line = p.line[:0]
	if p.format == output.JSON {
		p.line = append(p.line, ",\n  "...)
		if p.rows == 1 {
			p.line = append(p.line[:0], "{\"rows\": [\n  "...)
		}
	}
	var err error
	if p.line, err = p.enc.AppendJSON(p.line, row, p.format == output.JSON); err != nil {
		return err
	}
	if p.format == output.Lines {
		p.line = append(p.line, '\n')
	}
	return p.write(p.line)
}

// finish prints what stands behind the rows. Without a summary the answer was cut short, and an envelope stays open, so
// that nobody takes it for whole.
func (p *rowPrinter) finish(s *watershedv1.ScanSummary) error {
	switch {
	case p.format == output.Table:
		return p.table.Flush()
	case p.format == output.Lines || s == nil:
		return nil
	}
	reflects, err := json.MarshalIndent(output.NewReflects(s.GetShards()), "", "  ")
	if err != nil {
		return fmt.Errorf("print: %w", err)
	}
	head := "\n],\n"
	if p.rows == 0 {
		head = "{\"rows\": [],\n"
	}
	return p.write(append(append([]byte(head), reflects[2:]...), '\n')) // without its opening brace and line break
}

func (p *rowPrinter) write(b []byte) error {
	if _, err := p.w.Write(b); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
