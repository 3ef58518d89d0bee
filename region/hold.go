package region

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/watershed-db/watershed/keyspace"
	"github.com/watershed-db/watershed/region/config"
	"github.com/watershed-db/watershed/region/group"
	"github.com/watershed-db/watershed/region/placement"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/shard"
)

const (
	// begunFile marks a folder whose first replicas were begun: from then on it has those that are in it, and founds none.
	// It says up to which index shard 0 was restored.
	begunFile = "begun"
	begunTemp = "begun.tmp"
	// goneSuffix ends the names of replicas' folders that are being deleted.
	goneSuffix = ".gone"
)

// founding returns the placement table that the region begins with, the same on every node that founds it.
func founding(c config.Config) (*placement.Table, error) {
	var nodes []placement.Node
	for _, n := range c.Nodes {
		nodes = append(nodes, placement.Node{ID: n.ID, Raft: n.Raft, GRPC: n.GRPC, HTTP: n.HTTP, Zone: n.Zone, Weight: max(n.Weight, 1)})
	}
	return placement.Found(nodes, c.Shards, c.Replication)
}

// seats returns the first configuration of a shard's group.
func seats(t *placement.Table, shard int) []group.Seat {
	var out []group.Seat
	for _, n := range t.Nodes {
		if voter := slices.Contains(t.Shards[shard], n.ID); voter || t.Holds(n.ID, shard) {
			out = append(out, group.Seat{Member: group.Member{ID: n.ID, Address: n.Raft}, Voter: voter})
		}
	}
	return out
}

func (n *Node) shardFolder(id int) string {
	return filepath.Join(n.o.Config.Data, shardsFolder, fmt.Sprintf("%04d", id))
}

// openReplicas starts the replicas that this node holds, several at once: each may have some log to replay. A node that
// founds the region begins with its share of it, one that joins with shard 0, which tells it of the others.
func (n *Node) openReplicas() error {
	c := n.o.Config
	if err := n.finishDrops(); err != nil {
		return err
	}
	begun := filepath.Join(c.Data, begunFile)
	_, err := os.Stat(begun)
	fresh := errors.Is(err, fs.ErrNotExist)
	if err != nil && !fresh {
		return fmt.Errorf("data folder: %w", err)
	}
	if err := n.seed(); err != nil {
		return err
	}
	var opening errgroup.Group
	opening.SetLimit(4)
	for i := range c.Shards {
		var first []group.Seat
		switch {
		case fresh && !c.Join:
			if !n.founding.Holds(c.Node, i) {
				continue
			}
			first = seats(n.founding, i)
		case i != 0:
			if _, err := os.Stat(n.shardFolder(i)); err != nil {
				continue
			}
		}
		opening.Go(func() error { return n.openReplica(i, first) })
	}
	if err := opening.Wait(); err != nil {
		return err
	}
	if !fresh {
		if err := n.readBegun(begun); err != nil {
			return err
		}
		return n.seeded()
	}
	if mark, err := readRestore(c.Data); err != nil {
		return folderError(c.Data, err)
	} else if mark != nil {
		n.restored = mark.Indexes[0]
	}
	if err := writeWhole(c.Data, begunTemp, begunFile, fmt.Appendf(nil, "restored %d\n", n.restored)); err != nil {
		return folderError(c.Data, err)
	}
	return n.seeded()
}

// readBegun reads up to which index shard 0 was restored when the node's replicas were begun.
func (n *Node) readBegun(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if _, err := fmt.Sscanf(string(b), "restored %d", &n.restored); err != nil {
		return fmt.Errorf("data folder: %w: %s", ErrDamaged, begunFile)
	}
	return nil
}

// openReplica starts one replica, and founds its group where first says so.
func (n *Node) openReplica(id int, first []group.Seat) error {
	c := n.o.Config
	r, err := replica.Open(replica.Options{
		Shard: shard.Config{
			Self: c.RegionID(), Regions: c.RegionIDs(), Shard: keyspace.ShardID(id), Shards: c.Shards, Found: foundOwned(c),
		},
		Dir: n.shardFolder(id), Found: first,
		Host: n.host, Cache: n.cache, TableBytes: int64(c.Store.Table), Fatal: n.o.Fatal, Logger: n.o.Logger,
		Room: func() error { return n.room(uint32(id)) },
	})
	if err != nil {
		return err
	}
	n.local.Set(keyspace.ShardID(id), r)
	return nil
}

// attach gives a replica the tasks that it has while it leads.
func (n *Node) attach(r *replica.Replica) {
	n.peers.attach(r)
	n.owners.attach(r)
	for _, task := range n.o.Parts.Lead {
		r.Lead(func(ctx context.Context) { task(ctx, n.env, r) })
	}
}

// dropReplica closes a replica and deletes what it kept. Renamed first: after a crash in between, the rest is deleted at
// the next start, and nothing that is half gone is opened.
func (n *Node) dropReplica(id int) error {
	r := n.local.Get(keyspace.ShardID(id))
	n.local.Set(keyspace.ShardID(id), nil)
	n.peers.detach(keyspace.ShardID(id))
	n.owners.detach(keyspace.ShardID(id))
	if err := r.Close(); err != nil {
		return err
	}
	if err := os.Rename(n.shardFolder(id), n.shardFolder(id)+goneSuffix); err != nil {
		return fmt.Errorf("drop shard %d: %w", id, err)
	}
	if err := syncFolder(filepath.Dir(n.shardFolder(id))); err != nil {
		return err
	}
	return n.deleteDropped(id)
}

func (n *Node) deleteDropped(id int) error {
	if err := n.host.Drop(uint32(id)); err != nil {
		return err
	}
	if err := os.RemoveAll(n.shardFolder(id) + goneSuffix); err != nil {
		return fmt.Errorf("drop shard %d: %w", id, err)
	}
	return nil
}

// finishDrops deletes what a crash has left of replicas that were being deleted.
func (n *Node) finishDrops() error {
	entries, err := os.ReadDir(filepath.Join(n.o.Config.Data, shardsFolder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	for _, e := range entries {
		name, gone := strings.CutSuffix(e.Name(), goneSuffix)
		if id, err := strconv.Atoi(name); gone && err == nil {
			if err := n.deleteDropped(id); err != nil {
				return err
			}
		}
	}
	return nil
}
