package dev

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/log/kafka"
	"github.com/watershed-db/watershed/processor/job"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// jobFile is a job that has been checked.
type jobFile struct {
	name string // of the file
	text []byte
	job  *job.Job
}

// readJobs reads and checks job files, so that nothing starts for one that is wrong.
func readJobs(names []string) ([]jobFile, error) {
	var out []jobFile
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("job file: %w", err)
		}
		j, err := job.Parse(name, text)
		if err == nil {
			err = j.RequireTopics(name)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, jobFile{name, text, j})
	}
	return out, nil
}

// topics lists what jobs read and write, sorted.
func topics(jobs []jobFile) []string {
	var out []string
	for _, f := range jobs {
		for _, in := range f.job.Inputs {
			out = append(out, in.Topic)
		}
		for _, s := range f.job.Emit.Sinks {
			out = append(out, s.KafkaTopic)
		}
		out = append(out, f.job.SideOutputs.Late, f.job.SideOutputs.Implausible, f.job.SideOutputs.Invalid)
	}
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(s string) bool { return s == "" })
}

// topicConfig bounds how far ahead of the broker's clock a producer's timestamp may be, so that max_future means something.
var topicConfig = map[string]string{"message.timestamp.after.max.ms": "3600000"}

// makeTopics makes the topics that jobs name and that a region's Kafka lacks.
func (d *Deployment) makeTopics(ctx context.Context, r *regionLayout) error {
	names := topics(d.jobs)
	ctx, cancel := context.WithTimeout(ctx, d.options.ReadyWithin)
	defer cancel()
	client, err := kafka.Dial(ctx, kafka.Config{Brokers: d.brokers(r)}, d.options.Logger.Named("kafka"))
	if err != nil {
		return fmt.Errorf("region %s: %w", r.Name, err)
	}
	defer client.Close()
	for _, name := range names {
		if _, err := client.CreateTopic(ctx, name, d.options.Partitions, 0, topicConfig); err != nil {
			return fmt.Errorf("region %s: %w", r.Name, err)
		}
	}
	return nil
}

// applyRetry is the pause between two tries to apply a job.
const applyRetry = 200 * time.Millisecond

// applyJob applies a job at the owner region, by whichever node answers.
func (d *Deployment) applyJob(ctx context.Context, f jobFile) error {
	ctx, cancel := context.WithTimeout(ctx, d.options.ReadyWithin)
	defer cancel()
	addresses := d.Endpoints().Regions[d.layout.Regions[0].Name].GRPC
	for try := 0; ; try++ {
		answer, err := applyAt(ctx, addresses[try%len(addresses)], f)
		if err == nil {
			for _, w := range answer.GetWarnings() {
				d.event("%s: warning: %s", f.name, w)
			}
			return nil
		}
		if c := status.Code(err); c != codes.Unavailable && c != codes.DeadlineExceeded {
			return fmt.Errorf("apply %s: %s", f.name, status.Convert(err).Message())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("apply %s: %w (%s)", f.name, ctx.Err(), status.Convert(err).Message())
		case <-time.After(applyRetry):
		}
	}
}

func applyAt(ctx context.Context, address string, f jobFile) (*watershedv1.ApplyJobResponse, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return watershedv1.NewJobServiceClient(conn).Apply(ctx, &watershedv1.ApplyJobRequest{FileName: f.name, File: f.text})
}
