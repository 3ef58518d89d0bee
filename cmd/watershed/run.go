package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/processor/bounded"
	"github.com/watershed-db/watershed/processor/job"
)

// runOptions are the flags of `watershed run`.
type runOptions struct {
	job, recordTime, stats string
	inputs                 []string
	flushRecords           int
}

func newRun() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run --job JOB.yaml --input [REGION/]TOPIC=FILE [--input ...]",
		Short: "Run a job over files to their ends and print its rows",
		Long: "Run a job over files and print its rows, one JSON object a line, sorted by window end, window start and\n" +
			"key. Each --input is one partition of its topic, in the order given; .gz is read as it is, - is standard\n" +
			"input. If any input fails, nothing is printed.",
		Example: "  watershed run --job edits.yaml --input edits=wiki-edits.jsonl.gz --stats stats.json\n" +
			"  watershed run --job rides.yaml --input us-east/rides=east.csv --input eu-west/rides=west.csv",
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.job, "job", "", "the job file")
	f.StringArrayVar(&o.inputs, "input", nil, "a partition: [REGION/]TOPIC=FILE")
	f.StringVar(&o.recordTime, "record-time", "",
		"the log timestamp of all records (RFC 3339), by which max_future is judged; without it nothing is implausible")
	f.StringVar(&o.stats, "stats", "", "write what became of the events to this file, as one JSON object")
	f.IntVar(&o.flushRecords, "flush-records", 0, "tell the shard after so many records; the rows do not depend on it")
	if err := f.MarkHidden("flush-records"); err != nil {
		panic(err)
	}
	return cmd
}

func run(ctx context.Context, o runOptions, stdout, stderr io.Writer) error {
	cfg, err := o.config()
	if err != nil {
		return err
	}
	if err := o.checkStats(); err != nil {
		return err
	}
	start := time.Now()
	r, err := bounded.New(cfg)
	if err != nil {
		return err
	}
	stats, err := readAll(ctx, r, stderr)
	if err != nil {
		return err
	}
	rows, err := printRows(ctx, cfg.Job, r, stdout)
	if err != nil {
		return err
	}
	return o.writeStats(stats, rows, time.Since(start))
}

func (o *runOptions) config() (bounded.Config, error) {
	cfg := bounded.Config{RecordTime: log.NoTimestamp, FlushRecords: o.flushRecords}
	if o.job == "" || len(o.inputs) == 0 {
		return cfg, usagef("run needs --job and at least one --input")
	}
	for _, s := range o.inputs {
		in, err := bounded.ParseInput(s)
		if err != nil {
			return cfg, usageError{err}
		}
		cfg.Inputs = append(cfg.Inputs, in)
	}
	if o.recordTime != "" {
		t, err := time.Parse(time.RFC3339, o.recordTime)
		if err != nil {
			return cfg, usagef("--record-time %q: want a time such as 2015-09-13T00:00:00Z", o.recordTime)
		}
		cfg.RecordTime = t.UnixMilli()
	}
	text, err := readFile("job", o.job)
	if err != nil {
		return cfg, err
	}
	if cfg.Job, err = job.Parse(o.job, text); err != nil {
		return cfg, err
	}
	return cfg, nil
}

// readFile reads the file of a job or a table, and no more of it than shows that it is too long.
func readFile(what, name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("%s file: %w", what, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, job.MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("%s file: %w", what, err)
	}
	return text, nil
}

// readAll reads the inputs, showing progress on a terminal. It does not wait for a read that blocks once ctx is done.
func readAll(ctx context.Context, r *bounded.Run, stderr io.Writer) (bounded.Stats, error) {
	type result struct {
		stats bounded.Stats
		err   error
	}
	done := make(chan result, 1)
	go func() {
		stats, err := r.Read(ctx)
		done <- result{stats, err}
	}()
	var tick <-chan time.Time
	if f, ok := stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		t := time.NewTicker(200 * time.Millisecond)
		defer t.Stop()
		tick = t.C
		defer fmt.Fprint(stderr, "\r\x1b[K")
	}
	start := time.Now()
	for {
		select {
		case res := <-done:
			return res.stats, res.err
		case <-ctx.Done():
			return bounded.Stats{}, ctx.Err()
		case <-tick:
			n := r.Events()
			fmt.Fprintf(stderr, "\r%d events, %.0f/s\x1b[K", n, float64(n)/time.Since(start).Seconds())
		}
	}
}

// printRows prints all rows and returns their number.
func printRows(ctx context.Context, j *job.Job, r *bounded.Run, stdout io.Writer) (rows uint64, err error) {
	w := bufio.NewWriterSize(stdout, 1<<16)
	var line []byte
	err = r.Rows(func(row *job.Row) error {
		if rows++; rows%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		line = append(j.AppendRow(line[:0], row, false), '\n')
		_, err := w.Write(line)
		return err
	})
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return rows, fmt.Errorf("print rows: %w", err)
	}
	return rows, nil
}

// checkStats fails early where the file of the counts can't be made.
func (o *runOptions) checkStats() error {
	if o.stats == "" {
		return nil
	}
	dir, err := os.Stat(filepath.Dir(o.stats))
	if err == nil && !dir.IsDir() {
		err = fs.ErrNotExist
	}
	if f, e := os.Stat(o.stats); err == nil && e == nil && f.IsDir() {
		err = errors.New("it is a folder")
	}
	if err != nil {
		return fmt.Errorf("stats file %s: %w", o.stats, err)
	}
	return nil
}

func (o *runOptions) writeStats(s bounded.Stats, rows uint64, took time.Duration) error {
	if o.stats == "" {
		return nil
	}
	text, err := json.Marshal(struct {
		Events      uint64  `json:"events"`
		Filtered    uint64  `json:"filtered"`
		Late        uint64  `json:"late"`
		Implausible uint64  `json:"implausible"`
		Invalid     uint64  `json:"invalid"`
		Rows        uint64  `json:"rows"`
		Seconds     float64 `json:"seconds"`
	}{s.Events, s.Filtered, s.Late, s.Implausible, s.Invalid, rows, took.Seconds()})
	if err == nil {
		err = os.WriteFile(o.stats, append(text, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("write stats: %w", err)
	}
	return nil
}
