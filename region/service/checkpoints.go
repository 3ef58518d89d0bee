package service

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/checkpoint"
	"github.com/watershed-db/watershed/region/checkpoint/objects"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/router"
)

// Checkpoints are those of the node's region.
type Checkpoints struct {
	Uploader *checkpoint.Uploader
	Keeper   *checkpoint.Keeper
	Lineage  *checkpoint.Lineage
	Store    objects.Store
	Place    string // where they are, for people
	// Leading says whether this node keeps the region's checkpoints now; where not, it returns a *group.NotLeaderError.
	Leading func() error
}

// errNoCheckpoints answers for a region without.
var errNoCheckpoints = status.Error(codes.FailedPrecondition,
	"this region keeps no checkpoints: its nodes' configuration lacks checkpoints.url")

// kept returns the node's checkpoints.
func (s *Server) kept() (*Checkpoints, error) {
	if s.o.Checkpoints == nil {
		return nil, errNoCheckpoints
	}
	return s.o.Checkpoints, nil
}

// Checkpoint implements the service. It is answered where shard 0 is led.
func (s clusterService) Checkpoint(ctx context.Context, in *watershedv1.CheckpointRequest) (*watershedv1.CheckpointResponse, error) {
	c, err := s.kept()
	if err != nil {
		return nil, err
	}
	if in.GetSavepoint() != "" && !checkpoint.ValidName(in.GetSavepoint()) {
		return nil, status.Errorf(codes.InvalidArgument,
			"savepoint %.100q: want a letter, then letters, digits, dots, dashes and underscores, 63 at most", in.GetSavepoint())
	}
	if err := c.Leading(); err != nil {
		return nil, err
	}
	var cut *checkpoint.Cut
	if name := in.GetSavepoint(); name == "" {
		cut, err = c.Keeper.Checkpoint(ctx)
	} else {
		cut, err = c.Keeper.Savepoint(ctx, name)
	}
	if err != nil {
		return nil, checkpointStatus(err)
	}
	return &watershedv1.CheckpointResponse{Checkpoint: toCheckpoint(cut)}, nil
}

// Checkpoints implements the service.
func (s clusterService) Checkpoints(ctx context.Context, _ *watershedv1.CheckpointsRequest) (*watershedv1.CheckpointsResponse, error) {
	c, err := s.kept()
	if err != nil {
		return nil, err
	}
	cuts, problems, err := checkpoint.List(ctx, c.Store, s.o.Region)
	if err != nil {
		return nil, checkpointStatus(err)
	}
	out := &watershedv1.CheckpointsResponse{Place: c.Place}
	for _, cut := range cuts {
		out.Checkpoints = append(out.Checkpoints, toCheckpoint(cut))
	}
	for _, p := range problems {
		out.Problems = append(out.Problems, p.Error())
	}
	return out, nil
}

// DeleteSavepoint implements the service.
func (s clusterService) DeleteSavepoint(ctx context.Context, in *watershedv1.DeleteSavepointRequest) (
	*watershedv1.DeleteSavepointResponse, error) {
	c, err := s.kept()
	if err != nil {
		return nil, err
	}
	if err := c.Keeper.DeleteSavepoint(ctx, in.GetSavepoint()); err != nil {
		return nil, checkpointStatus(err)
	}
	return &watershedv1.DeleteSavepointResponse{}, nil
}

func toCheckpoint(c *checkpoint.Cut) *watershedv1.Checkpoint {
	out := &watershedv1.Checkpoint{
		Id: c.ID, Savepoint: c.Name, Region: c.Region, Member: uint32(c.Member), TimeMs: c.At.UnixMilli(), Bytes: c.Bytes(),
	}
	for _, p := range c.Parts {
		out.Indexes = append(out.Indexes, p.Index)
	}
	return out
}

// checkpointStatus sorts what can go wrong by whether another try can help.
func checkpointStatus(err error) error {
	if err == nil || errors.Is(err, group.ErrNotLeader) {
		return err
	}
	code := codes.Unavailable
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, objects.ErrExists):
		code = codes.AlreadyExists
	case errors.Is(err, checkpoint.ErrForeign), errors.Is(err, checkpoint.ErrDeposed), errors.Is(err, checkpoint.ErrLineage),
		errors.Is(err, checkpoint.ErrVersion), errors.Is(err, objects.ErrCredentials), errors.Is(err, objects.ErrDenied),
		errors.Is(err, objects.ErrBucket), errors.Is(err, objects.ErrClock):
		code = codes.FailedPrecondition
	case errors.Is(err, objects.ErrNotFound):
		code = codes.NotFound
	}
	return status.Error(code, err.Error())
}

// checkpointService serves the node of the region that keeps its checkpoints.
type checkpointService struct {
	regionv1.UnimplementedCheckpointServiceServer
	*Server
}

// Upload implements the service.
func (s checkpointService) Upload(ctx context.Context, in *regionv1.UploadRequest) (*regionv1.UploadResponse, error) {
	if err := s.ours(in.GetDeployment()); err != nil {
		return nil, err
	}
	c, err := s.kept()
	if err != nil {
		return &regionv1.UploadResponse{Outcome: regionv1.UploadOutcome_UPLOAD_OUTCOME_FAILED, Reason: status.Convert(err).Message()}, nil
	}
	part, err := c.Uploader.Upload(ctx, checkpoint.Order{
		Shard: int(in.GetShard()), Term: in.GetTerm(), Look: in.GetLook(), Lineage: in.GetLineage(),
		Least: in.GetLeast(),
	})
	out := &regionv1.UploadResponse{
		Outcome: regionv1.UploadOutcome_UPLOAD_OUTCOME_DONE, Number: part.Number, Sha256: part.SHA256, Index: part.Index, Bytes: part.Bytes,
	}
	if err == nil {
		return out, nil
	}
	out.Reason, out.Outcome = err.Error(), regionv1.UploadOutcome_UPLOAD_OUTCOME_FAILED
	switch {
	case errors.Is(err, checkpoint.ErrDeposed):
		out.Outcome = regionv1.UploadOutcome_UPLOAD_OUTCOME_DEPOSED
	case errors.Is(err, checkpoint.ErrBehind):
		out.Outcome = regionv1.UploadOutcome_UPLOAD_OUTCOME_BEHIND
	}
	return out, nil
}

// Vouch implements the service.
func (s checkpointService) Vouch(_ context.Context, in *regionv1.VouchRequest) (*regionv1.VouchResponse, error) {
	if err := s.ours(in.GetDeployment()); err != nil {
		return nil, err
	}
	c, err := s.kept()
	return &regionv1.VouchResponse{Known: err == nil && in.GetLineage() != "" && c.Lineage.ID() == in.GetLineage()}, nil
}

// ours refuses a call for another deployment.
func (s *Server) ours(deployment string) error {
	if deployment != s.o.Deployment {
		s.refusals.note(deployment, "a call for another deployment")
		return router.ErrDeployment
	}
	return nil
}
