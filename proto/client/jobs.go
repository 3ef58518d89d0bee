package client

import (
	"context"

	"google.golang.org/grpc"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// ValidateJob checks a job file as a node does, and starts nothing. name stands in front of every problem.
func (c *Client) ValidateJob(ctx context.Context, name string, file []byte) (out *watershedv1.ValidateJobResponse, err error) {
	in := &watershedv1.ValidateJobRequest{FileName: name, File: file}
	err = c.call(ctx, false, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		out, err = watershedv1.NewJobServiceClient(cc).Validate(ctx, in)
		return err
	})
	return out, err
}

// ApplyJob registers a job and returns when every reachable region runs it. A file that is refused is INVALID_ARGUMENT, a
// changed meaning FAILED_PRECONDITION.
func (c *Client) ApplyJob(ctx context.Context, name string, file []byte) (out *watershedv1.ApplyJobResponse, err error) {
	in := &watershedv1.ApplyJobRequest{FileName: name, File: file}
	err = c.call(ctx, true, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		out, err = watershedv1.NewJobServiceClient(cc).Apply(ctx, in)
		return err
	})
	return out, err
}

// ListJobs returns all jobs by name.
func (c *Client) ListJobs(ctx context.Context) (jobs []*watershedv1.Job, err error) {
	err = c.call(ctx, false, func(ctx context.Context, cc *grpc.ClientConn) error {
		out, err := watershedv1.NewJobServiceClient(cc).List(ctx, &watershedv1.ListJobsRequest{})
		jobs = out.GetJobs()
		return err
	})
	return jobs, err
}

// ShowJob returns one job and where the shards of the answering region stand. One that does not exist is NOT_FOUND.
func (c *Client) ShowJob(ctx context.Context, name string) (out *watershedv1.ShowJobResponse, err error) {
	err = c.call(ctx, false, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		out, err = watershedv1.NewJobServiceClient(cc).Show(ctx, &watershedv1.ShowJobRequest{Name: name})
		return err
	})
	return out, err
}

// DeleteJob ends a job and drops its state in every region. existed may be false after a first try whose answer was lost.
func (c *Client) DeleteJob(ctx context.Context, name string) (out *watershedv1.DeleteJobResponse, err error) {
	err = c.call(ctx, true, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		out, err = watershedv1.NewJobServiceClient(cc).Delete(ctx, &watershedv1.DeleteJobRequest{Name: name})
		return err
	})
	return out, err
}

// Raise puts a format in force in the answering node's region, for good, without asking some of the other regions; see
// watershedv1.ClusterServiceClient.
func (c *Client) Raise(ctx context.Context, format uint32, without ...string) error {
	return c.call(ctx, false, func(ctx context.Context, cc *grpc.ClientConn) error {
		_, err := watershedv1.NewClusterServiceClient(cc).Raise(ctx, &watershedv1.RaiseRequest{Format: format, Without: without})
		return err
	})
}

// Rebuild has a node's replicas dropped and taken anew from their leaders: those of shards, or all that are damaged where it
// is empty; whole ones too only if that is said. Node "" is the one that answers. It returns when they have caught up.
func (c *Client) Rebuild(ctx context.Context, node string, shards []uint32, whole bool) (rebuilt []uint32, err error) {
	in := &watershedv1.RebuildRequest{Node: node, Shards: shards, Whole: whole}
	err = c.call(ctx, true, func(ctx context.Context, cc *grpc.ClientConn) error {
		out, err := watershedv1.NewClusterServiceClient(cc).Rebuild(ctx, in)
		rebuilt = out.GetShards()
		return err
	})
	return rebuilt, err
}

// Topology returns how the deployment stands, as the answering node sees it.
func (c *Client) Topology(ctx context.Context) (out *watershedv1.TopologyResponse, err error) {
	err = c.call(ctx, false, func(ctx context.Context, cc *grpc.ClientConn) (err error) {
		out, err = watershedv1.NewClusterServiceClient(cc).Topology(ctx, &watershedv1.TopologyRequest{})
		return err
	})
	return out, err
}
