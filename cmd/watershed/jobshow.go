package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/watershed-db/watershed/cmd/watershed/internal/output"
	"github.com/watershed-db/watershed/proto/client"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// jobJSON is a job as it is printed.
type jobJSON struct {
	Job        string       `json:"job"`
	Generation string       `json:"generation"`
	State      string       `json:"state"`
	Sources    []sourceJSON `json:"sources"`
	Warnings   []string     `json:"warnings"`
}

// shownJSON is a job with all that is known of it.
type shownJSON struct {
	jobJSON
	File string `json:"file"`
	output.Reflects
}

// sourceJSON is where the answering region stands in a source: the least over its shards.
type sourceJSON struct {
	Input       uint32  `json:"input"`
	Region      string  `json:"region"`
	Topic       string  `json:"topic"`
	Partition   int32   `json:"partition"`
	Incarnation uint32  `json:"incarnation"`
	Offset      int64   `json:"offset"`
	LogEnd      *int64  `json:"log_end"` // null: unknown
	Behind      *int64  `json:"behind"`
	Watermark   *string `json:"watermark"`
	Worker      string  `json:"worker"`
	Idle        bool    `json:"idle"`
	Stopped     string  `json:"stopped"`
	Counted     uint64  `json:"counted"`
	Filtered    uint64  `json:"filtered"`
	Late        uint64  `json:"late"`
	Implausible uint64  `json:"implausible"`
	Invalid     uint64  `json:"invalid"`
}

func generationText(id []byte) string { return hex.EncodeToString(id) }

func newJobJSON(j *watershedv1.Job) jobJSON {
	out := jobJSON{
		Job: j.GetName(), Generation: generationText(j.GetGeneration()), State: j.GetState(), Sources: []sourceJSON{},
		Warnings: append([]string{}, j.GetWarnings()...),
	}
	for _, s := range j.GetSources() {
		p := s.GetPoint()
		src := sourceJSON{
			Input: p.GetInput(), Region: p.GetRegion(), Topic: p.GetTopic(), Partition: p.GetPartition(),
			Incarnation: p.GetIncarnation(), Offset: p.GetOffset(), LogEnd: known(s.GetLogEnd()),
			Watermark: output.TimeOrNull(p.GetWatermarkMs()), Worker: s.GetWorker(), Idle: s.GetIdle(), Stopped: s.GetStopped(),
		}
		if src.LogEnd != nil {
			behind := max(*src.LogEnd-src.Offset, 0)
			src.Behind = &behind
		}
		for i, to := range []*uint64{&src.Counted, &src.Filtered, &src.Late, &src.Implausible, &src.Invalid} {
			if i < len(p.GetCounts()) {
				*to = p.GetCounts()[i]
			}
		}
		out.Sources = append(out.Sources, src)
	}
	return out
}

// behind sums up how many records a job's sources are behind their logs; ok is false where that isn't known of any.
func (j jobJSON) behind() (n int64, ok bool) {
	for _, s := range j.Sources {
		if s.Behind != nil {
			n, ok = n+*s.Behind, true
		}
	}
	return n, ok
}

func newJobList() *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use:               "list",
		Short:             "List the jobs",
		Long:              "List the jobs by name, and how far the region that answers has come with them.",
		Example:           "  watershed job list --endpoint 127.0.0.1:7001",
		Args:              exactArgs(0),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				jobs, err := c.ListJobs(ctx)
				if err != nil {
					return fmt.Errorf("list jobs: %w", err)
				}
				list := make([]jobJSON, len(jobs))
				for i, j := range jobs {
					list[i] = newJobJSON(j)
				}
				if f == output.Table {
					return jobTable(cmd, list)
				}
				return output.Objects(cmd.OutOrStdout(), f, list)
			})
		},
	}
	o.flags(cmd, 10*time.Second, "how long to try")
	return cmd
}

func jobTable(cmd *cobra.Command, list []jobJSON) error {
	t := output.NewTable(cmd.OutOrStdout(), "JOB", "STATE", "SOURCES", "STOPPED", "BEHIND", "GENERATION")
	for _, j := range list {
		stopped := 0
		for _, s := range j.Sources {
			if s.Stopped != "" {
				stopped++
			}
		}
		behind := ""
		if n, ok := j.behind(); ok {
			behind = strconv.FormatInt(n, 10)
		}
		t.Add(j.Job, j.State, strconv.Itoa(len(j.Sources)), strconv.Itoa(stopped), behind, j.Generation)
		warn(cmd, j.Job, j.Warnings)
	}
	return t.Flush()
}

func newJobShow() *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show a job: its sources, counts, shards and file",
		Long: "Show a job as the region that answers sees it: where it stands in each source, what became of the records,\n" +
			"and where each shard stands. With --output json or jsonl its file too.",
		Example:           "  watershed job show surge --endpoint 127.0.0.1:7001",
		Args:              exactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				answer, err := c.ShowJob(ctx, args[0])
				if err != nil {
					return fmt.Errorf("show %s: %w", args[0], err)
				}
				j := shownJSON{newJobJSON(answer.GetJob()), string(answer.GetJob().GetFile()), output.NewReflects(answer.GetShards())}
				if f != output.Table {
					return output.Object(cmd.OutOrStdout(), f, j)
				}
				warn(cmd, j.Job, j.Warnings)
				return shownTables(cmd, j, answer.GetShards())
			})
		},
	}
	o.flags(cmd, 10*time.Second, "how long to try")
	return cmd
}

func shownTables(cmd *cobra.Command, j shownJSON, states []*watershedv1.ShardState) error {
	w := cmd.OutOrStdout()
	watermark := "none"
	if j.Watermark != nil {
		watermark = *j.Watermark
	}
	if _, err := fmt.Fprintf(w, "job %s is %s, generation %s, watermark %s\n\n", output.Printable(j.Job), output.Printable(j.State),
		j.Generation, watermark); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	sources := output.NewTable(w, "SOURCE", "OFFSET", "BEHIND", "WATERMARK", "COUNTED", "FILTERED", "LATE", "IMPLAUSIBLE", "INVALID",
		"WORKER", "STATE")
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	for _, s := range j.Sources {
		behind, at := "", ""
		if s.Behind != nil {
			behind = strconv.FormatInt(*s.Behind, 10)
		}
		if s.Watermark != nil {
			at = *s.Watermark
		}
		sources.Add(s.name(), strconv.FormatInt(s.Offset, 10), behind, at, number(s.Counted), number(s.Filtered), number(s.Late),
			number(s.Implausible), number(s.Invalid), s.Worker, s.state())
	}
	if err := sources.Flush(); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	shards := output.NewTable(w, "SHARD", "APPLIED", "WATERMARK", "HORIZON", "CUT OFF FROM")
	for _, s := range states {
		shards.Add(number(uint64(s.GetShard())), number(s.GetAppliedIndex()), output.Time(s.GetWatermarkMs()),
			output.Time(s.GetHorizonMs()), strings.Join(s.GetMissing(), ", "))
	}
	return shards.Flush()
}

// name tells a source from the others of its job.
func (s sourceJSON) name() string {
	name := fmt.Sprintf("%s/%s/%d", s.Region, s.Topic, s.Partition)
	if s.Incarnation > 0 {
		name += fmt.Sprintf(" incarnation %d", s.Incarnation)
	}
	if s.Input > 0 {
		name += fmt.Sprintf(" (source %d)", s.Input+1)
	}
	return name
}

func (s sourceJSON) state() string {
	switch {
	case s.Stopped != "":
		return "stopped: " + s.Stopped
	case s.Idle:
		return "idle"
	}
	return "running"
}
