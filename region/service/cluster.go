package service

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/watershed-db/watershed/keyspace"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/config"
	"github.com/watershed-db/watershed/region/shard"
)

const (
	// upWithin bounds the question whether a node of this region is up.
	upWithin = 400 * time.Millisecond
	// summaryWithin bounds the question how another region is, over all its nodes.
	summaryWithin = 1500 * time.Millisecond
)

// clusterService serves the topology.
type clusterService struct {
	watershedv1.UnimplementedClusterServiceServer
	*Server
}

// Topology implements the service. Asked by another node of this region it tells what it knows by itself.
func (s clusterService) Topology(ctx context.Context, _ *watershedv1.TopologyRequest) (*watershedv1.TopologyResponse, error) {
	out := &watershedv1.TopologyResponse{
		Deployment: s.o.Deployment, Region: s.o.Region, Node: s.o.Node, Shards: uint32(s.o.Shards), Version: s.o.Version,
		Format: shard.Format,
	}
	if incoming, _ := metadata.FromIncomingContext(ctx); len(incoming.Get(forwarded)) > 0 {
		own := s.ownShards()
		own.Nodes = []*watershedv1.Node{{Id: s.o.Node, Up: true, Format: shard.Format, Damaged: s.damaged()}}
		out.Regions = []*watershedv1.Region{own}
		return out, nil
	}
	out.Regions = s.allRegions(ctx)
	return out, nil
}

// allRegions tells how each region sees itself.
func (s *Server) allRegions(ctx context.Context) []*watershedv1.Region {
	out := make([]*watershedv1.Region, len(s.o.Regions))
	s.eachRegion(func(i int) {
		if r := s.o.Regions[i]; r.Name == s.o.Region {
			out[i] = s.ownRegion(ctx)
		} else {
			out[i] = s.otherRegion(ctx, r)
		}
	})
	return out
}

// ownShards tells how this node sees the shards of its region.
func (s *Server) ownShards() *watershedv1.Region {
	self, _ := s.o.Member(s.o.Region)
	out := &watershedv1.Region{Name: self.Name, Member: uint32(self.Member), Reachable: true}
	for i := range s.o.Router.Shards() {
		id := keyspace.ShardID(i)
		here := s.o.Router.Replica(id)
		if here == nil {
			out.Shards = append(out.Shards, &watershedv1.Shard{Shard: uint32(i)})
			continue
		}
		st := here.Status()
		owner, epoch := here.State().Owner()
		out.Shards = append(out.Shards, &watershedv1.Shard{
			Shard: uint32(i), Leader: st.Leader.ID, Term: st.Term, AppliedIndex: st.Applied, Owner: string(owner), Epoch: uint64(epoch),
			Lag: s.o.Lag(id), Format: here.State().Format,
		})
		if members, err := here.Membership(); err == nil {
			last := out.Shards[i]
			for _, seat := range members.Seats {
				if seat.Voter {
					last.Voters = append(last.Voters, seat.ID)
				} else {
					last.Members = append(last.Members, seat.ID)
				}
			}
		}
	}
	return out
}

// ownRegion tells how this region sees itself: of each shard what its leader says, where that answers.
func (s *Server) ownRegion(ctx context.Context) *watershedv1.Region {
	out := s.ownShards()
	out.Nodes, out.Placement = s.nodes()
	views := make([]*watershedv1.TopologyResponse, len(out.Nodes))
	var asking sync.WaitGroup
	for i, n := range out.Nodes {
		if n.GetId() == s.o.Node {
			n.Up, n.Format, n.Damaged = true, shard.Format, s.damaged()
		} else {
			asking.Go(func() { views[i] = s.askNode(ctx, n.GetGrpc()) })
		}
	}
	asking.Wait()
	for i, v := range views {
		if v == nil {
			continue
		}
		out.Nodes[i].Up, out.Nodes[i].Format = true, v.GetFormat()
		for _, n := range v.GetRegions()[0].GetNodes() {
			out.Nodes[i].Damaged = append(out.Nodes[i].Damaged, n.GetDamaged()...)
		}
		for j, sh := range v.GetRegions()[0].GetShards() {
			if j < len(out.Shards) && sh.GetLeader() == out.Nodes[i].GetId() && sh.GetTerm() >= out.Shards[j].GetTerm() {
				out.Shards[j] = sh
			}
		}
	}
	return out
}

// askNode returns how another node of this region sees it, with that as the one region of the answer; nil where the node
// does not answer.
func (s *Server) askNode(ctx context.Context, address string) *watershedv1.TopologyResponse {
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, forwarded, s.o.Node), upWithin)
	defer cancel()
	conn, err := s.o.Conns.To(address)
	if err != nil {
		return nil
	}
	answer, err := watershedv1.NewClusterServiceClient(conn).Topology(ctx, &watershedv1.TopologyRequest{})
	if err != nil || len(answer.GetRegions()) != 1 {
		return nil
	}
	return answer
}

// otherRegion asks another region how it sees itself.
func (s *Server) otherRegion(ctx context.Context, r config.Region) *watershedv1.Region {
	out := &watershedv1.Region{Name: r.Name, Member: uint32(r.Member)}
	answer, err := s.summary(ctx, r)
	if err != nil {
		out.Note = "cannot be reached: " + status.Convert(err).Message()
		return out
	}
	if err := proto.Unmarshal(answer.GetRegion(), out); err != nil || out.GetName() != r.Name {
		return &watershedv1.Region{Name: r.Name, Member: uint32(r.Member), Note: "sent a malformed summary"}
	}
	return out
}

func (s *Server) summary(ctx context.Context, r config.Region) (answer *peerv1.SummaryResponse, err error) {
	ctx, cancel := context.WithTimeout(ctx, summaryWithin)
	defer cancel()
	err = s.anyNode(ctx, r, func(ctx context.Context, conn *grpc.ClientConn) error {
		answer, err = peerv1.NewPeerServiceClient(conn).Summary(ctx, &peerv1.SummaryRequest{Hello: s.hello()})
		return err
	})
	return answer, err
}

// anyNode calls a region's nodes one after the other until one answers. Each gets a part of the time.
func (s *Server) anyNode(ctx context.Context, r config.Region, call func(ctx context.Context, conn *grpc.ClientConn) error) error {
	err := fmt.Errorf("no node of %s is known", r.Name)
	addresses := r.GRPC
	if s.o.Addresses != nil {
		addresses = s.o.Addresses(r.Name)
	}
	for i, address := range addresses {
		if ctx.Err() != nil {
			return err
		}
		part := upWithin
		if deadline, ok := ctx.Deadline(); ok {
			part = max(time.Until(deadline)/time.Duration(len(addresses)-i), time.Millisecond)
		}
		conn, e := s.o.Conns.To(address)
		if err = e; err != nil {
			continue
		}
		try, cancel := context.WithTimeout(ctx, part)
		err = call(try, conn)
		cancel()
		if err == nil || !temporary(err) {
			return err
		}
	}
	return err
}
