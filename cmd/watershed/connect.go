package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/watershed-db/watershed/cmd/watershed/internal/output"
	"github.com/watershed-db/watershed/proto/client"
)

// endpointVariable is the environment variable that stands for --endpoint; several are parted by commas.
const endpointVariable = "WATERSHED_ENDPOINT"

// connection holds the flags of all commands that talk to a deployment.
type connection struct {
	endpoints []string
	timeout   time.Duration
	printing
}

// printing holds the flag of all commands that print data.
type printing struct{ output string }

func (p *printing) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.output, "output", "", "how to print: table, json or jsonl (default table on a terminal, else jsonl)")
	complete := cobra.FixedCompletions([]string{"table", "json", "jsonl"}, cobra.ShellCompDirectiveNoFileComp)
	if err := cmd.RegisterFlagCompletionFunc("output", complete); err != nil {
		panic(err)
	}
}

func (p *printing) format(cmd *cobra.Command) (output.Format, error) {
	f, err := output.ParseFormat(p.output, cmd.OutOrStdout())
	if err != nil {
		return f, usageError{err}
	}
	return f, nil
}

func (c *connection) flags(cmd *cobra.Command, timeout time.Duration, meaning string) {
	cmd.Flags().StringArrayVar(&c.endpoints, "endpoint", nil,
		"HOST:PORT of a node's gRPC port; repeatable, they are tried in turn (default $"+endpointVariable+")")
	cmd.Flags().DurationVar(&c.timeout, "timeout", timeout, meaning)
	c.printing.flags(cmd)
}

// addresses returns the endpoints that were given, by flag or else by environment.
func (c *connection) addresses() []string {
	if len(c.endpoints) > 0 {
		return c.endpoints
	}
	return strings.FieldsFunc(os.Getenv(endpointVariable), func(r rune) bool { return r == ',' || r == ' ' })
}

// with calls f with a client of the deployment. An error is told in the words of the node that sent it.
func (c *connection) with(cmd *cobra.Command, f func(context.Context, *client.Client, output.Format) error) (err error) {
	format, err := c.format(cmd)
	if err != nil {
		return err
	}
	addresses := c.addresses()
	if len(addresses) == 0 {
		return usagef("%s needs --endpoint HOST:PORT or %s", cmd.CommandPath(), endpointVariable)
	}
	if c.timeout <= 0 {
		return usagef("--timeout %s: want more than nothing", c.timeout)
	}
	cl, err := client.New(addresses, client.WithPatience(c.timeout))
	if errors.Is(err, client.ErrEndpoint) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cl.Close()) }()
	err = f(cmd.Context(), cl, format)
	if ended := cmd.Context().Err(); ended != nil && err != nil {
		return ended
	}
	return err
}

// listed joins names for people.
func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// warn prints warnings to standard error, a line each.
func warn(cmd *cobra.Command, about string, warnings []string) {
	for _, w := range warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "watershed: warning: %s: %s\n", about, output.Printable(w))
	}
}
