package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"
)

// usage is what a process took.
type usage struct {
	wall, cpu time.Duration // cpu is user and system time of all its threads
	stdout    []byte
}

// measure runs a program to its end. Its standard output goes to a file if discard is set, else it is returned.
func measure(ctx context.Context, discard bool, name string, args ...string) (usage, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stderr = &errs
	if !discard {
		cmd.Stdout = &out // else to the null device, which is what exec does with nil
	}
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return usage{}, fmt.Errorf("%s %v: %w: %s", name, args, err, errs.Bytes())
	}
	u := usage{wall: time.Since(start), stdout: out.Bytes()}
	u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return u, nil
}

// spread is the least, the middle and the greatest of some numbers.
type spread struct{ min, median, max float64 }

func spreadOf(xs []float64) spread {
	xs = slices.Clone(xs)
	slices.Sort(xs)
	return spread{xs[0], quantile(xs, 0.5), xs[len(xs)-1]}
}

// quantile returns the value at rank floor(q(n-1)) of sorted numbers.
func quantile(sorted []float64, q float64) float64 { return sorted[int(q*float64(len(sorted)-1))] }

// String implements fmt.Stringer.
func (s spread) String() string { return fmt.Sprintf("%.3g (%.3g-%.3g)", s.median, s.min, s.max) }

// load returns the machine's load average over a minute, as the kernel writes it; "unknown" where it does not.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if one, _, ok := bytes.Cut(b, []byte{' '}); err == nil && ok {
		return string(one)
	}
	return "unknown"
}
