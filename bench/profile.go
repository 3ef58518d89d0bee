package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/pprof"

	"github.com/watershed-db/watershed/log"
	"github.com/watershed-db/watershed/processor/bounded"
	"github.com/watershed-db/watershed/processor/job"
)

// profile does what `watershed run` does, in this process, and writes a CPU profile of it.
func profile(ctx context.Context, args []string) (err error) {
	f := flags("profile")
	jobFile := f.String("job", "bench/jobs/rides.yaml", "the job file")
	source := f.String("input", "", "TOPIC=FILE")
	out := f.String("out", "cpu.pprof", "the profile")
	_ = f.Parse(args) // exits by itself
	text, err := os.ReadFile(*jobFile)
	if err != nil {
		return err
	}
	cfg := bounded.Config{RecordTime: log.NoTimestamp}
	if cfg.Job, err = job.Parse(*jobFile, text); err != nil {
		return err
	}
	in, err := bounded.ParseInput(*source)
	if err != nil {
		return err
	}
	cfg.Inputs = []bounded.Input{in}
	run, err := bounded.New(cfg)
	if err != nil {
		return err
	}
	to, err := os.Create(*out)
	if err != nil {
		return err
	}
	defer func() {
		if e := to.Close(); err == nil {
			err = e
		}
	}()
	if err := pprof.StartCPUProfile(to); err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer pprof.StopCPUProfile()
	if _, err := run.Read(ctx); err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	w := bufio.NewWriter(null)
	var line []byte
	err = run.Rows(func(row *job.Row) error {
		line = append(cfg.Job.AppendRow(line[:0], row, false), '\n')
		_, err := w.Write(line)
		return err
	})
	if err == nil {
		err = w.Flush()
	}
	return err
}
