package region

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	"github.com/watershed-db/watershed/region/checkpoint"
	"github.com/watershed-db/watershed/region/checkpoint/objects"
	"github.com/watershed-db/watershed/region/config"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/router"
	"github.com/watershed-db/watershed/region/service"
)

// Names in a data folder that belong to checkpoints.
const (
	uploadFolder = "upload"       // checkpoints on their way to the object store
	lineageFile  = "lineage.json" // which history of the region the data belongs to
)

// uploadWithin bounds the upload of one shard's checkpoint; what was sent until then need not be sent again.
const uploadWithin = 10 * time.Minute

// openStore returns the object store that the configuration names.
func openStore(c config.Checkpoints) (objects.Store, objects.Location, error) {
	l, err := objects.ParseLocation(c.URL)
	if err != nil {
		return nil, l, fmt.Errorf("checkpoints.url: %w", err)
	}
	store, err := objects.Open(context.Background(), objects.Options{Location: l, Rate: int64(c.Rate)})
	if err != nil {
		return nil, l, fmt.Errorf("checkpoints: %w", err)
	}
	return store, l, nil
}

// scopeOf says whose checkpoints a node's are.
func scopeOf(c config.Config) checkpoint.Scope {
	self, _ := c.Member(c.Region)
	s := checkpoint.Scope{Deployment: c.Deployment, Region: c.Region, Member: self.Member, Shards: c.Shards, Node: c.Node}
	for _, r := range c.RegionIDs() {
		s.Regions = append(s.Regions, string(r))
	}
	for _, n := range c.Nodes {
		s.Nodes = append(s.Nodes, n.ID)
	}
	return s
}

// keepCheckpoints has the node upload what it is told to, and keep the region's checkpoints while it leads shard 0. Not
// ok where the configuration names no place for them. An object store that can't be reached is no error.
func (n *Node) keepCheckpoints() (*service.Checkpoints, error) {
	c := n.o.Config
	if c.Checkpoints.URL == "" {
		return nil, nil
	}
	store, location, err := openStore(c.Checkpoints)
	if err != nil {
		return nil, err
	}
	n.objects = store
	lineage, err := checkpoint.OpenLineage(filepath.Join(c.Data, lineageFile))
	if err != nil {
		return nil, err
	}
	metrics, scope := checkpoint.NewMetrics(), scopeOf(c)
	logger := n.o.Logger.Named("checkpoint")
	sources := make([]checkpoint.Source, c.Shards)
	for i := range sources {
		sources[i] = source{n.local, keyspace.ShardID(i)}
	}
	uploader, err := checkpoint.NewUploader(checkpoint.UploaderOptions{
		Scope: scope, Store: store, Sources: sources, Dir: filepath.Join(c.Data, uploadFolder), Lineage: lineage, Metrics: metrics,
	})
	if err != nil {
		return nil, err
	}
	keeper := checkpoint.NewKeeper(checkpoint.KeeperOptions{
		Scope: scope, Store: store, Nodes: uploaders{n.env, uploader}, Lineage: lineage, Metrics: metrics, Logger: logger,
		Holders: n.holders, Present: n.nodeIDs,
		Policy: checkpoint.Policy{Keep: c.Checkpoints.Keep, MaxAge: c.Checkpoints.MaxAge.D()}, Interval: c.Checkpoints.Interval.D(),
	})
	first := n.local.Get(0)
	first.Lead(keeper.Run)
	n.registry.MustRegister(metrics)
	logger.Info("the region's state is kept", "in", location.String(), "every", c.Checkpoints.Interval)
	return &service.Checkpoints{
		Uploader: uploader, Keeper: keeper, Lineage: lineage, Store: store, Place: location.String(),
		Leading: func() error { return leading(first) },
	}, nil
}

// source is what a node has of a shard at the moment.
type source struct {
	local *router.Local
	id    keyspace.ShardID
}

var errElsewhere = errors.New("this node has no replica of the shard")

// Checkpoint implements checkpoint.Source.
func (s source) Checkpoint(dir string) (index uint64, chain []byte, err error) {
	if r := s.local.Get(s.id); r != nil {
		return r.Checkpoint(dir)
	}
	return 0, nil, errElsewhere
}

// WaitApplied implements checkpoint.Source.
func (s source) WaitApplied(ctx context.Context, index uint64) error {
	if r := s.local.Get(s.id); r != nil {
		return r.WaitApplied(ctx, index)
	}
	return errElsewhere
}

// holders lists the nodes that are to hold a shard.
func (n *Node) holders(shard int) []string {
	if table, _, err := n.carrier.Table(); err == nil && table != nil {
		return table.Shards[shard]
	}
	return n.founding.Shards[shard]
}

// leading says where a shard is led if not here.
func leading(r *replica.Replica) error {
	if r.IsLeader() {
		return nil
	}
	return &group.NotLeaderError{Leader: r.Leader()}
}

// uploaders reaches the uploaders of the region's nodes.
type uploaders struct {
	env  *Env
	here *checkpoint.Uploader
}

var _ checkpoint.Nodes = uploaders{}

// to returns a connection to a node of the region.
func (u uploaders) to(node string) (*grpc.ClientConn, error) {
	address := u.env.Router.Address(node)
	if address == "" {
		return nil, fmt.Errorf("node %s: %w: it is none of the region's", node, checkpoint.ErrNode)
	}
	return u.env.Conns.To(address)
}

// Upload implements checkpoint.Nodes.
func (u uploaders) Upload(ctx context.Context, node string, o checkpoint.Order) (checkpoint.Part, error) {
	ctx, cancel := context.WithTimeout(ctx, uploadWithin)
	defer cancel()
	if node == u.env.Config.Node {
		return u.here.Upload(ctx, o)
	}
	conn, err := u.to(node)
	if err != nil {
		return checkpoint.Part{}, err
	}
	answer, err := regionv1.NewCheckpointServiceClient(conn).Upload(ctx, &regionv1.UploadRequest{
		Deployment: u.env.Config.Deployment, Shard: uint32(o.Shard), Term: o.Term, Look: o.Look, Lineage: o.Lineage,
		Least: o.Least,
	})
	if err != nil {
		return checkpoint.Part{}, fmt.Errorf("shard %d: node %s: %w: %w", o.Shard, node, checkpoint.ErrNode, err)
	}
	said := errors.New(answer.GetReason())
	switch answer.GetOutcome() {
	case regionv1.UploadOutcome_UPLOAD_OUTCOME_DONE:
		return checkpoint.Part{
			Shard: o.Shard, Number: answer.GetNumber(), SHA256: answer.GetSha256(), Index: answer.GetIndex(), Bytes: answer.GetBytes(),
		}, nil
	case regionv1.UploadOutcome_UPLOAD_OUTCOME_DEPOSED:
		return checkpoint.Part{}, fmt.Errorf("node %s: %w (%w)", node, checkpoint.ErrDeposed, said)
	case regionv1.UploadOutcome_UPLOAD_OUTCOME_BEHIND:
		return checkpoint.Part{}, fmt.Errorf("node %s: %w (%w)", node, checkpoint.ErrBehind, said)
	default:
		return checkpoint.Part{}, fmt.Errorf("node %s: %w", node, said)
	}
}

// Acknowledged implements checkpoint.Nodes.
func (u uploaders) Acknowledged(ctx context.Context, shard int) (uint64, error) {
	_, index, _, err := u.env.Router.Points(ctx, keyspace.ShardID(shard), crdt.GenerationID{})
	return index, err
}

// vouchWithin bounds the question to one node.
const vouchWithin = 2 * time.Second

// Vouch implements checkpoint.Nodes.
func (u uploaders) Vouch(ctx context.Context, node, lineage string) bool {
	ctx, cancel := context.WithTimeout(ctx, vouchWithin)
	defer cancel()
	conn, err := u.to(node)
	if err != nil {
		return false
	}
	answer, err := regionv1.NewCheckpointServiceClient(conn).Vouch(ctx, &regionv1.VouchRequest{
		Deployment: u.env.Config.Deployment, Lineage: lineage,
	})
	return err == nil && answer.GetKnown()
}
