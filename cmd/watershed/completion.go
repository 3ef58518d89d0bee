package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newCompletion() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a script that makes a shell complete commands and flags",
		Example: "  source <(watershed completion bash)\n" +
			"  watershed completion zsh > \"${fpath[1]}/_watershed\"\n" +
			"  watershed completion fish > ~/.config/fish/completions/watershed.fish",
		Args:                  exactArgs(1),
		ValidArgs:             shells,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			root, w := cmd.Root(), cmd.OutOrStdout()
			var err error
			switch args[0] {
			case "bash":
				err = root.GenBashCompletionV2(w, true)
			case "zsh":
				err = root.GenZshCompletion(w)
			case "fish":
				err = root.GenFishCompletion(w, true)
			case "powershell":
				err = root.GenPowerShellCompletionWithDesc(w)
			default:
				return usagef("completion for %q: want one of %s", args[0], listed(shells))
			}
			if err != nil {
				return fmt.Errorf("print completion: %w", err)
			}
			return nil
		},
	}
}
