// Command bench measures Watershed and prints what it measured: `watershed run` beside a loop that does the least that
// could be called the same work, and a region of three nodes fed from Kafka. bench/run.sh runs all of it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sort"
	"syscall"
)

// commands are bench's subcommands. gen, scan and follow are also what the others start as processes of their own.
var commands = map[string]func(ctx context.Context, args []string) error{
	"gen":        generate,
	"follow":     follow,
	"scan":       scan,
	"run":        compareRuns,
	"profile":    profile,
	"region":     measureRegion,
	"loss":       measureLoss,
	"checkpoint": measureCheckpoint,
	"soak":       measureSoak,
	"watchers":   measureWatchers,
	"reads":      measureReads,
	"restart":    measureRestart,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		names := make([]string, 0, len(commands))
		for name := range commands {
			names = append(names, name)
		}
		sort.Strings(names)
		fmt.Fprintf(os.Stderr, "usage: bench COMMAND [flags], one of %v\n", names)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := commands[os.Args[1]](ctx, os.Args[2:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

// flags returns a flag set that exits with its own message.
func flags(name string) *flag.FlagSet { return flag.NewFlagSet("bench "+name, flag.ExitOnError) }
