// Package e2e drives the built watershed binary from outside, as its users do, and compares what it prints with the
// oracle: the bounded run, deployments of one and two regions with faults while records flow, real brokers, bad days.
// Everything is left out by -short.
package e2e
