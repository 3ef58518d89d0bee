package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// group makes cmd a command that only holds others: alone it prints its help, and anything unknown is wrong usage.
func group(cmd *cobra.Command, subs ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		hint := ""
		if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
			hint = fmt.Sprintf(" (did you mean %s?)", strings.Join(s, " or "))
		}
		if cmd.HasParent() {
			hint = " of " + cmd.CommandPath() + hint
		}
		return usagef("unknown command %q%s", args[0], hint)
	}
	cmd.AddCommand(subs...)
	return cmd
}
