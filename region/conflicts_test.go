package region

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/failover/owned"
	"github.com/watershed-db/watershed/keyspace"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/group"
)

// laterTable is a table that no shard was told of yet: its rows are nobody's to sweep.
var laterTable = owned.TableID{0xff}

// putOwned is a write of a key, by a session of its own.
func putOwned(key, value string, sequence uint64) owned.Op {
	return owned.Op{Kind: owned.Put, Time: time.Now().UnixMilli(), Table: laterTable, Key: crdt.Text(key).AppendKey(nil), Value: []byte(value),
		ID: owned.ID{Session: owned.Session{Born: time.Now().UnixMilli(), Nonce: 7}, Sequence: sequence}}
}

// held returns the values that a region's first node holds.
func (c *cluster) held(shard int) map[string]string {
	c.t.Helper()
	r := c.nodes[0].node.local.Get(keyspace.ShardID(shard))
	if r == nil {
		return nil
	}
	s, err := r.Snapshot()
	if err != nil {
		c.t.Fatal(err)
	}
	defer s.Close()
	reader, err := s.Owned()
	if err != nil {
		c.t.Fatal(err)
	}
	v, err := reader.At(reader.Held())
	if err != nil {
		c.t.Fatal(err)
	}
	out := map[string]string{}
	_, err = v.Scan(laterTable, nil, 100, func(key []byte, row owned.Row) bool {
		k, _, err := crdt.CutKey(key)
		if err != nil {
			c.t.Fatal(err)
		}
		out[k.Text()] = string(row.Value)
		return true
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func (c *cluster) holds(shard int, want map[string]string) {
	c.t.Helper()
	until(c.t, fmt.Sprintf("%s holds %v", c.config.Region, want), func(context.Context) error {
		if got := c.held(shard); fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}

// conflicts lists what the ledgers of both regions hold.
func (c *cluster) conflicts(in *watershedv1.ConflictsRequest, n int, missing ...string) (out []*watershedv1.Conflict) {
	c.t.Helper()
	until(c.t, fmt.Sprintf("%d conflicts", n), func(ctx context.Context) error {
		answer, err := watershedv1.NewClusterServiceClient(c.conn(0)).Conflicts(ctx, in)
		if err != nil {
			return err
		}
		if out = answer.GetConflicts(); len(out) != n || !slices.Equal(answer.GetMissing(), missing) {
			return fmt.Errorf("%v", answer)
		}
		return nil
	})
	return out
}

// TestConflicts: what an owner had taken that was lost, and another one forced in its place did not have, is in the ledger when
// the lost one is back: it can be looked at, done again, given up.
func TestConflicts(t *testing.T) {
	regions := newClusters(t, 1, 1, "a", "b")
	a, b := regions[0], regions[1]
	owns(t, a, 0, "a", "a", "b")
	writes := func(c *cluster, list ...owned.Op) {
		for _, op := range list {
			if _, err := c.nodes[0].node.owners.Shard(0).Write(t.Context(), op.Append(nil), true); err != nil {
				t.Fatal(err)
			}
		}
	}
	writes(a, putOwned("k", "first", 1))
	b.holds(0, map[string]string{"k": "first"})
	b.stop(0)
	for i, op := range []owned.Op{putOwned("k", "lost", 1), putOwned("l", "lost as well", 2)} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := a.nodes[0].node.owners.Shard(0).Write(ctx, op.Append(nil), true); !errors.Is(err, group.ErrIndefinite) {
			t.Fatalf("write %d without another region: %v", i, err)
		}
		cancel()
	}
	a.holds(0, map[string]string{"k": "lost", "l": "lost as well"})
	a.stop(0)
	b.start(0, Listeners{})
	b.conflicts(&watershedv1.ConflictsRequest{}, 0, "a")
	b.force(0)
	owns(t, b, 0, "b", "b")
	writes(b, putOwned("m", "stands", 1))
	b.holds(0, map[string]string{"k": "first", "m": "stands"})
	a.start(0, Listeners{})
	a.holds(0, map[string]string{"k": "first", "m": "stands"})

	for _, c := range regions {
		list := c.conflicts(&watershedv1.ConflictsRequest{}, 2)
		for i, want := range []string{"k", "l"} {
			x := list[i]
			if x.GetKey().GetText() != want || x.GetOperation() != "put" || !slices.Equal(x.GetRegions(), []string{"a"}) || x.GetValue() != nil {
				t.Errorf("conflict %d seen by %s: %v", i, c.config.Region, x)
			}
		}
	}
	list := b.conflicts(&watershedv1.ConflictsRequest{}, 2)
	shown := b.conflicts(&watershedv1.ConflictsRequest{Id: list[0].GetId()}, 1)[0]
	if string(shown.GetValue()) != "lost" || !shown.GetHadBefore() || string(shown.GetBefore()) != "first" {
		t.Errorf("shown: %v", shown)
	}
	client := watershedv1.NewClusterServiceClient(a.conn(0))
	again, err := client.ReplayConflict(t.Context(), &watershedv1.ReplayConflictRequest{Id: list[0].GetId()})
	if err != nil || !again.GetApplied() || again.GetAgain() || again.GetOwner() != "b" {
		t.Fatalf("replay: %v, %v", again, err)
	}
	for _, c := range regions {
		c.holds(0, map[string]string{"k": "lost", "m": "stands"})
	}
	b.conflicts(&watershedv1.ConflictsRequest{}, 1)
	given, err := client.DiscardConflict(t.Context(), &watershedv1.DiscardConflictRequest{Id: list[1].GetId(), Reason: "a test"})
	if err != nil || !slices.Equal(given.GetRegions(), []string{"a"}) {
		t.Errorf("discard: %v, %v", given, err)
	}
	b.conflicts(&watershedv1.ConflictsRequest{}, 0)
	if x := b.conflicts(&watershedv1.ConflictsRequest{Settled: true}, 1)[0]; x.GetReason() != "a test" || !x.GetSettled() {
		t.Errorf("settled: %v", x)
	}
	for name, err := range map[string]error{
		"replay one that was done":      second(client.ReplayConflict(t.Context(), &watershedv1.ReplayConflictRequest{Id: list[0].GetId()})),
		"discard one that was done":     second(client.DiscardConflict(t.Context(), &watershedv1.DiscardConflictRequest{Id: list[0].GetId(), Reason: "x"})),
		"discard one twice":             second(client.DiscardConflict(t.Context(), &watershedv1.DiscardConflictRequest{Id: list[1].GetId(), Reason: "x"})),
		"replay one that was discarded": second(client.ReplayConflict(t.Context(), &watershedv1.ReplayConflictRequest{Id: list[1].GetId()})),
		"discard without a reason":      second(client.DiscardConflict(t.Context(), &watershedv1.DiscardConflictRequest{Id: list[1].GetId()})),
		"an id that is none":            second(client.Conflicts(t.Context(), &watershedv1.ConflictsRequest{Id: "0-1@1"})),
	} {
		if c := status.Code(err); c != codes.NotFound && c != codes.FailedPrecondition && c != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
