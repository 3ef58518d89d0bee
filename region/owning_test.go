package region

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// flip has a shard handed to a region, by way of this one.
func (c *cluster) flip(shard int, to string) *watershedv1.FlipResponse {
	c.t.Helper()
	var out *watershedv1.FlipResponse
	until(c.t, fmt.Sprintf("flip shard %d to %s", shard, to), func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		out, err = watershedv1.NewClusterServiceClient(c.conn(0)).Flip(ctx, &watershedv1.FlipRequest{Shard: uint32(shard), To: to})
		return err
	})
	return out
}

// force makes this region the owner of a shard.
func (c *cluster) force(shard int) *watershedv1.ForceResponse {
	c.t.Helper()
	var out *watershedv1.ForceResponse
	until(c.t, fmt.Sprintf("force shard %d to %s", shard, c.config.Region), func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		out, err = watershedv1.NewClusterServiceClient(c.conn(0)).Force(ctx, &watershedv1.ForceRequest{Shard: uint32(shard), To: c.config.Region})
		return err
	})
	return out
}

// owns waits until every region takes one for the owner of a shard, and that one may answer.
func owns(t *testing.T, at *cluster, shard int, owner string, regions ...string) {
	t.Helper()
	until(t, fmt.Sprintf("%s owns shard %d", owner, shard), func(ctx context.Context) error {
		answer, err := watershedv1.NewClusterServiceClient(at.conn(0)).Ownership(ctx, &watershedv1.OwnershipRequest{Shard: uint32(shard)})
		if err != nil {
			return err
		}
		for _, v := range answer.GetRegions() {
			if slices.Contains(regions, v.GetRegion()) && (v.GetOwner() != owner || v.GetServes() != (v.GetRegion() == owner)) {
				return fmt.Errorf("%v", v)
			}
		}
		return nil
	})
}

// TestFlip: a shard goes from one region to the other and back, by way of either; both agree on who owns it, and the registry
// goes with shard 0.
func TestFlip(t *testing.T) {
	regions := newClusters(t, 1, 2, "a", "b")
	a, b := regions[0], regions[1]
	owns(t, a, 0, "a", "a", "b")
	owns(t, b, 1, "a", "a", "b")
	a.apply(0, toyJob)
	for i, to := range []string{"b", "a", "b"} {
		out := regions[i%2].flip(0, to)
		if out.GetFrom() == to || out.GetEpoch() <= out.GetFromEpoch() {
			t.Fatalf("flip %d: %v", i, out)
		}
		t.Logf("flip %d took %d ms", i, out.GetPauseUs()/1000)
		owns(t, a, 0, to, "a", "b")
	}
	owns(t, a, 1, "a", "a", "b")
	b.apply(0, strings.Replace(toyJob, "name: toy", "name: second", 1))
	a.apply(0, strings.Replace(toyJob, "name: toy", "name: third", 1)) // which b takes
	for _, c := range regions {
		until(t, "the jobs in "+c.config.Region, func(context.Context) error {
			if n := c.nodes[0].node.local.Get(0).State().Registry().Live(); n != 3 {
				return fmt.Errorf("%d jobs", n)
			}
			return nil
		})
	}
	for name, in := range map[string]*watershedv1.FlipRequest{
		"a region that does not exist": {To: "c"},
		"the owner itself":             {To: "b"},
	} {
		if _, err := watershedv1.NewClusterServiceClient(a.conn(0)).Flip(t.Context(), in); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("flip to %s: %v", name, err)
		}
	}
	if _, err := watershedv1.NewClusterServiceClient(a.conn(0)).Force(t.Context(), &watershedv1.ForceRequest{To: "a"}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a force while the owner lives: %v", err)
	}
}

// TestForce: the owner of two regions is gone. Nothing is taken over by itself; an operator's word makes the other one the
// owner. The lost one comes back as another member, and may own the shard again.
func TestForce(t *testing.T) {
	regions := newClusters(t, 1, 1, "a", "b")
	a, b := regions[0], regions[1]
	owns(t, a, 0, "a", "a", "b")
	a.stop(0)
	cost, err := watershedv1.NewClusterServiceClient(b.conn(0)).Force(t.Context(), &watershedv1.ForceRequest{To: "b", Dry: true})
	until(t, "what a force costs", func(ctx context.Context) error {
		cost, err = watershedv1.NewClusterServiceClient(b.conn(0)).Force(ctx, &watershedv1.ForceRequest{To: "b", Dry: true})
		return err
	})
	if cost.GetUnknown() || cost.GetConfirmed() != 1 || !slices.Equal(cost.GetWithout(), []string{"a"}) || cost.GetEpoch() != 0 {
		t.Errorf("a force would cost %v", cost)
	}
	done := b.force(0)
	if done.GetEpoch() <= 1<<16|1 {
		t.Errorf("forced: %v", done)
	}
	owns(t, b, 0, "b", "b")
	a.start(0, Listeners{})
	owns(t, b, 0, "b", "a", "b")
	b.flip(0, "a")
	owns(t, b, 0, "a", "a", "b")
}
