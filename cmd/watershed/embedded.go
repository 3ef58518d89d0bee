package main

import (
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/watershed-db/watershed/log/embedded"
)

// newEmbeddedKafka returns the command that `dev` runs once for each region: a Kafka in a process of its own.
func newEmbeddedKafka() *cobra.Command {
	var port int
	var data string
	cmd := &cobra.Command{
		Use:     "embedded-kafka --port PORT --data DIR",
		Short:   "Run an embedded Kafka",
		Example: "  watershed embedded-kafka --port 9092 --data kafka-data",
		Args:    exactArgs(0),
		Hidden:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if data == "" || port <= 0 {
				return usagef("embedded-kafka needs --port and --data")
			}
			logger := hclog.New(&hclog.LoggerOptions{Name: "kafka", Output: os.Stderr, Level: hclog.Warn})
			return embedded.Run(cmd.Context(), embedded.Config{Ports: []int{port}, DataDir: data, Logger: logger}, nil)
		},
	}
	cmd.Flags().IntVar(&port, "port", 0, "the port of 127.0.0.1 to listen on")
	cmd.Flags().StringVar(&data, "data", "", "the data folder")
	return cmd
}
