package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/watershed-db/watershed/cmd/watershed/internal/output"
	"github.com/watershed-db/watershed/processor/job"
	"github.com/watershed-db/watershed/proto/client"
)

func newJob() *cobra.Command {
	return group(&cobra.Command{
		Use:     "job",
		Short:   "Check, apply, list, show and delete jobs",
		Example: "  watershed job apply surge.yaml --endpoint 127.0.0.1:7001",
	}, newJobValidate(), newJobApply(), newJobList(), newJobShow(), newJobDelete())
}

// validation is what was found in one job file.
type validation struct {
	File     string   `json:"file"`
	Job      string   `json:"job,omitempty"`
	Valid    bool     `json:"valid"`
	Problems []string `json:"problems"` // file:line:column: what; expected ...
	Warnings []string `json:"warnings"`
}

func newJobValidate() *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use:   "validate FILE...",
		Short: "Check job files, without starting anything",
		Long: "Check job files and print what is wrong, each problem with file, line and column. With an endpoint the node\n" +
			"there checks them, which also looks at the topics; without one nothing but the file is needed.",
		Example: "  watershed job validate surge.yaml",
		Args:    someArgs,
		RunE: func(cmd *cobra.Command, files []string) error {
			texts, err := readFiles("job", files)
			if err != nil {
				return err
			}
			if len(o.addresses()) > 0 {
				return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
					found, err := validateThere(ctx, c, files, texts)
					if err != nil {
						return err
					}
					return printValidations(cmd, f, found)
				})
			}
			f, err := o.format(cmd)
			if err != nil {
				return err
			}
			return printValidations(cmd, f, validateHere(files, texts))
		},
	}
	o.flags(cmd, 10*time.Second, "how long to try")
	return cmd
}

// someArgs is cobra.MinimumNArgs(1) as wrong usage.
func someArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usagef("%s takes at least one file", cmd.CommandPath())
	}
	return nil
}

// readFiles reads the files of jobs or tables, and no more of each than shows that it is too long.
func readFiles(what string, files []string) ([][]byte, error) {
	texts := make([][]byte, len(files))
	for i, name := range files {
		var err error
		if texts[i], err = readFile(what, name); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

func validateHere(files []string, texts [][]byte) []validation {
	out := make([]validation, len(files))
	for i, name := range files {
		v := validation{File: name, Problems: []string{}, Warnings: []string{}}
		j, err := job.Parse(name, texts[i])
		if err == nil {
			v.Job, err = j.Name, j.RequireTopics(name)
		}
		if err != nil {
			v.Problems = strings.Split(err.Error(), "\n")
		}
		v.Valid = err == nil
		out[i] = v
	}
	return out
}

func validateThere(ctx context.Context, c *client.Client, files []string, texts [][]byte) ([]validation, error) {
	out := make([]validation, len(files))
	for i, name := range files {
		answer, err := c.ValidateJob(ctx, name, texts[i])
		if err != nil {
			return nil, fmt.Errorf("validate %s: %w", name, err)
		}
		out[i] = validation{
			File: name, Job: answer.GetName(), Valid: len(answer.GetProblems()) == 0,
			Problems: append([]string{}, answer.GetProblems()...), Warnings: append([]string{}, answer.GetWarnings()...),
		}
	}
	return out, nil
}

// errInvalid tells all problems that were found, nil where there are none.
func errInvalid(found []validation) error {
	var problems []string
	for _, v := range found {
		problems = append(problems, v.Problems...)
	}
	if len(problems) == 0 {
		return nil
	}
	return errors.New(strings.Join(problems, "\n"))
}

// errCounted says how many problems there are, where they have been shown.
func errCounted(found []validation) error {
	problems, files := 0, 0
	for _, v := range found {
		if problems += len(v.Problems); len(v.Problems) > 0 {
			files++
		}
	}
	if problems == 0 {
		return nil
	}
	return fmt.Errorf("%d %s in %d of %d files", problems, plural(problems, "problem"), files, len(found))
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

func printValidations(cmd *cobra.Command, f output.Format, found []validation) error {
	if f != output.Table {
		return errors.Join(output.Objects(cmd.OutOrStdout(), f, found), errInvalid(found))
	}
	for _, v := range found {
		warn(cmd, v.File, v.Warnings)
		lines := v.Problems
		if v.Valid {
			lines = []string{v.File + ": ok"}
		}
		for _, line := range lines {
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), output.Printable(line)); err != nil {
				return fmt.Errorf("print: %w", err)
			}
		}
	}
	return errCounted(found)
}

// application is what came of applying one job.
type application struct {
	Job        string   `json:"job"`
	Generation string   `json:"generation"`
	Changed    bool     `json:"changed"`
	Regions    []string `json:"regions"` // run it
	Missing    []string `json:"missing"` // could not be reached and will learn of it
	Warnings   []string `json:"warnings"`
}

func newJobApply() *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use:   "apply FILE...",
		Short: "Start jobs in every region",
		Long: "Apply job files: each job runs in every region that can be reached when this returns, the others are named\n" +
			"and learn of it later. The same file again changes nothing. A file that changes what a running job means is\n" +
			"refused. If any file has a problem, none is applied.",
		Example: "  watershed job apply surge.yaml --endpoint 127.0.0.1:7001",
		Args:    someArgs,
		RunE: func(cmd *cobra.Command, files []string) error {
			texts, err := readFiles("job", files)
			if err != nil {
				return err
			}
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				return apply(ctx, cmd, c, f, files, texts)
			})
		},
	}
	o.flags(cmd, time.Minute, "how long to try, by file")
	return cmd
}

func apply(ctx context.Context, cmd *cobra.Command, c *client.Client, f output.Format, files []string, texts [][]byte) error {
	found, err := validateThere(ctx, c, files, texts)
	if err != nil {
		return err
	}
	if err := errInvalid(found); err != nil {
		return fmt.Errorf("nothing was applied: %w", err)
	}
	var done []application
	for i, name := range files {
		answer, e := c.ApplyJob(ctx, name, texts[i])
		if e != nil {
			err = fmt.Errorf("apply %s: %w", name, e)
			break
		}
		a := application{
			Job: answer.GetJob().GetName(), Generation: generationText(answer.GetJob().GetGeneration()), Changed: answer.GetChanged(),
			Regions: append([]string{}, answer.GetRegions()...), Missing: append([]string{}, answer.GetMissing()...),
			Warnings: append([]string{}, answer.GetWarnings()...),
		}
		if f == output.Table {
			warn(cmd, a.Job, a.Warnings)
		}
		done = append(done, a)
	}
	return errors.Join(printApplications(cmd, f, done), err)
}

func printApplications(cmd *cobra.Command, f output.Format, done []application) error {
	if f != output.Table {
		return output.Objects(cmd.OutOrStdout(), f, done)
	}
	if len(done) == 0 {
		return nil
	}
	t := output.NewTable(cmd.OutOrStdout(), "JOB", "RESULT", "RUNS IN", "NOT YET IN")
	for _, a := range done {
		result := "unchanged"
		if a.Changed {
			result = "applied"
		}
		t.Add(a.Job, result, listed(a.Regions), listed(a.Missing))
	}
	return t.Flush()
}

func newJobDelete() *cobra.Command {
	var o connection
	cmd := &cobra.Command{
		Use:               "delete NAME",
		Short:             "End a job and drop its state in every region",
		Long:              "End a job and drop its state in every region. Regions that can't be reached just now are named; they follow.",
		Example:           "  watershed job delete surge --endpoint 127.0.0.1:7001",
		Args:              exactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.with(cmd, func(ctx context.Context, c *client.Client, f output.Format) error {
				answer, err := c.DeleteJob(ctx, args[0])
				if err != nil {
					return fmt.Errorf("delete %s: %w", args[0], err)
				}
				if !answer.GetExisted() {
					return fmt.Errorf("there is no job %q", args[0])
				}
				if f != output.Table {
					return output.Object(cmd.OutOrStdout(), f, struct {
						Job     string   `json:"job"`
						Deleted bool     `json:"deleted"`
						Missing []string `json:"missing"`
					}{args[0], true, append([]string{}, answer.GetMissing()...)})
				}
				t := output.NewTable(cmd.OutOrStdout(), "JOB", "RESULT", "NOT YET IN")
				t.Add(args[0], "deleted", listed(answer.GetMissing()))
				return t.Flush()
			})
		},
	}
	o.flags(cmd, time.Minute, "how long to try")
	return cmd
}
