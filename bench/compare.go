package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// input is what both the floor and `watershed run` read: a file as so many partitions.
type input struct {
	name, file               string
	partitions               int
	layout, jobs, job, topic string
}

func (in *input) scan(group bool) []string {
	args := []string{"scan", "--layout", in.layout}
	if group {
		args = append(args, "--group")
	}
	for range in.partitions {
		args = append(args, in.file)
	}
	return args
}

func (in *input) run(stats string) []string {
	args := []string{"run", "--job", filepath.Join(in.jobs, in.job), "--stats", stats}
	for range in.partitions {
		args = append(args, "--input", in.topic+"="+in.file)
	}
	return args
}

// contender is one of the programs compared over an input.
type contender struct {
	name      string
	cpu, wall []float64 // seconds, by round
}

// compareRuns runs the floor and `watershed run` over the same files in turn, each a process of its own, and prints a
// table: CPU time counts all threads, start of the process included.
func compareRuns(ctx context.Context, args []string) error {
	f := flags("run")
	watershed := f.String("watershed", "", "the binary of watershed")
	jobs := f.String("jobs", "bench/jobs", "the folder of the job files")
	rounds := f.Int("rounds", 5, "how often each runs, in turn")
	wiki := f.String("wiki", "", "wiki-edits.jsonl.gz; left out if empty")
	wikiPlain := f.String("wiki-plain", "", "the same, unpacked; left out if empty")
	ridesJSON := f.String("rides", "", "generated events as JSONL; left out if empty")
	ridesCSV := f.String("rides-csv", "", "generated events as CSV; left out if empty")
	_ = f.Parse(args) // exits by itself
	if *watershed == "" || *rounds < 1 {
		return fmt.Errorf("--watershed and a positive --rounds are needed")
	}
	for _, in := range []input{
		{"wiki edits, gzip", *wiki, 1, "wiki", *jobs, "wiki.yaml", "edits"},
		{"wiki edits, unpacked, as 20 partitions", *wikiPlain, 20, "wiki", *jobs, "wiki.yaml", "edits"},
		{"rides, JSON", *ridesJSON, 1, "rides", *jobs, "rides.yaml", "rides"},
		{"rides, CSV", *ridesCSV, 1, "rides-csv", *jobs, "rides-csv.yaml", "rides"},
	} {
		if in.file == "" {
			continue
		}
		if err := compare(ctx, *watershed, in, *rounds); err != nil {
			return fmt.Errorf("%s: %w", in.name, err)
		}
	}
	return nil
}

func compare(ctx context.Context, watershed string, in input, rounds int) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	stats := filepath.Join(dir, "stats.json")
	all := []*contender{{name: "scan"}, {name: "scan and group"}, {name: "watershed run"}}
	var scanned struct{ Records, Bad, Groups uint64 }
	before := load()
	for range rounds {
		for i, c := range all {
			var u usage
			switch i {
			case 0:
				u, err = measure(ctx, false, self, in.scan(false)...)
			case 1:
				u, err = measure(ctx, false, self, in.scan(true)...)
				if err == nil {
					err = json.Unmarshal(u.stdout, &scanned)
				}
			case 2:
				u, err = measure(ctx, true, watershed, in.run(stats)...)
			}
			if err != nil {
				return err
			}
			c.cpu, c.wall = append(c.cpu, u.cpu.Seconds()), append(c.wall, u.wall.Seconds())
		}
	}
	if err := agree(stats, scanned.Records, scanned.Bad, scanned.Groups); err != nil {
		return err
	}
	fmt.Printf("\n**%s**: %d records, %d rows, %d rounds, load %s before and %s after\n\n", in.name, scanned.Records,
		scanned.Groups, rounds, before, load())
	printContenders(all, float64(scanned.Records))
	return nil
}

// agree checks that the run counted what the floor counted: a number beside other work would mean nothing.
func agree(stats string, records, bad, groups uint64) error {
	text, err := os.ReadFile(stats)
	if err != nil {
		return err
	}
	var s struct{ Events, Filtered, Late, Implausible, Invalid, Rows uint64 }
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("stats: %w", err)
	}
	if s.Events != records || s.Rows != groups || bad+s.Filtered+s.Late+s.Implausible+s.Invalid > 0 {
		return fmt.Errorf("the floor has %d records (%d bad) in %d groups, the run %+v", records, bad, groups, s)
	}
	return nil
}

func printContenders(all []*contender, records float64) {
	fmt.Println("| | CPU s, median (min-max) | wall s | records/s per core | CPU, times the scan |")
	fmt.Println("|---|---|---|---|---|")
	for _, c := range all {
		ratios := make([]float64, len(c.cpu))
		for i := range ratios {
			ratios[i] = c.cpu[i] / all[0].cpu[i]
		}
		fmt.Printf("| %s | %s | %s | %.0f | %s |\n", c.name, spreadOf(c.cpu), spreadOf(c.wall),
			records/spreadOf(c.cpu).median, spreadOf(ratios))
	}
}
