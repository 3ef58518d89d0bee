package region

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/watershed-db/watershed/crdt"
	peerv1 "github.com/watershed-db/watershed/proto/watershed/peer/v1"
	"github.com/watershed-db/watershed/region/router"
)

const (
	// learnEvery is how often a node asks each other region where its nodes are by default, nodesWithin bounds one question.
	learnEvery, nodesWithin = 5 * time.Second, time.Second
	// learnAtOnce is how many addresses of a region are tried at a time.
	learnAtOnce = 8

	addressesFile = "addresses.json"
	addressesTemp = "addresses.json.new"
	// AddressesVersion is that of the file with the addresses of other regions.
	AddressesVersion = 1
)

// learner keeps the directory of other regions' nodes up, and a copy of what it learned in the data folder. A node that
// has been down finds them again by it, also where all configured addresses are of nodes that are gone.
type learner struct {
	*peers
	kept []addresses // as in the file
}

// addresses is what the file keeps of a region.
type addresses struct {
	Region string   `json:"region"`
	Member uint16   `json:"member"`
	GRPC   []string `json:"grpc"`
}

type addressBook struct {
	Version int         `json:"version"`
	Regions []addresses `json:"regions"`
}

// learn asks the other regions once in every, until ctx ends.
func (p *peers) learn(ctx context.Context, every time.Duration) {
	if len(p.directory.Regions()) == 0 || p.env.Config.Peers.Fixed {
		return
	}
	l := &learner{peers: p}
	l.load()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for round := 0; ; round++ {
		var asking sync.WaitGroup
		within, cancel := context.WithTimeout(ctx, every) // of a region that is gone nothing is learned in longer either
		for _, region := range p.directory.Regions() {
			asking.Go(func() { l.ask(within, region, round) })
		}
		asking.Wait()
		cancel()
		l.save()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ask has one node of a region tell all of them, another one each round, since one may be out of touch with the others, and
// looks which of them are to be had from here.
func (l *learner) ask(ctx context.Context, region crdt.RegionID, round int) {
	known := l.directory.Addresses(region)
	for i := range known {
		address := known[(i+round)%len(known)]
		answer, err := l.nodes(ctx, region, address)
		if err != nil {
			l.logger.Debug("a node of another region does not tell the others", "region", region, "address", address, "error", err)
			continue
		}
		for _, gone := range l.directory.Tell(region, answer.GetRevision(), answer.GetGrpc()) {
			l.logger.Info("a node of another region is gone", "region", region, "address", gone)
			l.links.Forget(gone)
			l.env.Conns.Forget(gone)
		}
		l.directory.Answered(region, address)
		break
	}
	var trying errgroup.Group
	trying.SetLimit(learnAtOnce)
	for _, address := range l.directory.Unproven(region) {
		trying.Go(func() error {
			if _, err := l.nodes(ctx, region, address); err != nil {
				l.logger.Debug("a node of another region does not answer", "region", region, "address", address, "error", err)
				return nil
			}
			l.directory.Answered(region, address)
			l.logger.Info("a node of another region is known", "region", region, "address", address)
			return nil
		})
	}
	_ = trying.Wait() // none fails
}

// nodes asks at an address, over a connection for this one question: what is only told may be anything.
func (l *learner) nodes(ctx context.Context, region crdt.RegionID, address string) (*peerv1.NodesResponse, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, router.DialOptions()...)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, nodesWithin)
	defer cancel()
	answer, err := peerv1.NewPeerServiceClient(conn).Nodes(ctx, &peerv1.NodesRequest{Hello: l.id.Hello(0)},
		grpc.MaxCallRecvMsgSize(maxIdentity))
	if err != nil {
		return nil, err
	}
	if answer.GetRegion() != string(region) {
		return nil, fmt.Errorf("a node of region %.64q answers", answer.GetRegion())
	}
	return answer, nil
}

// load takes up what the file has of regions that are still the same members.
func (l *learner) load() {
	book, err := readAddresses(l.env.Config.Data)
	if err != nil {
		l.logger.Warn("the addresses of other regions that were learned can't be read; the configured ones are used", "error", err)
		return
	}
	l.kept = book.Regions
	for _, m := range l.id.Members {
		for _, r := range book.Regions {
			if r.Region != string(m.Region) || r.Member != m.Number {
				continue
			}
			l.directory.Tell(m.Region, 0, r.GRPC)
			for _, address := range l.directory.Unproven(m.Region) {
				l.directory.Proven(m.Region, address)
			}
		}
	}
}

// save writes the file where what was learned is something else by now.
func (l *learner) save() {
	var now []addresses
	for _, m := range l.id.Members {
		if list := l.directory.Learned(m.Region); len(list) > 0 {
			now = append(now, addresses{string(m.Region), m.Number, slices.Sorted(slices.Values(list))})
		}
	}
	if slices.EqualFunc(now, l.kept, func(a, b addresses) bool {
		return a.Region == b.Region && a.Member == b.Member && slices.Equal(a.GRPC, b.GRPC)
	}) {
		return
	}
	b, err := json.MarshalIndent(addressBook{AddressesVersion, now}, "", "  ")
	if err == nil {
		err = writeWhole(l.env.Config.Data, addressesTemp, addressesFile, append(b, '\n'))
	}
	if err != nil {
		l.logger.Warn("the addresses of other regions are not kept", "error", err)
		return
	}
	l.kept = now
}

// readAddresses returns an empty book where there is no file.
func readAddresses(dir string) (addressBook, error) {
	var book addressBook
	name := filepath.Join(dir, addressesFile)
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return book, nil
	}
	if err != nil {
		return book, err
	}
	if info.Size() > maxIdentity {
		return book, fmt.Errorf("%s has %d bytes, at most %d are read", addressesFile, info.Size(), maxIdentity)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return book, err
	}
	if err := json.Unmarshal(b, &book); err != nil || book.Version < 1 {
		return addressBook{}, fmt.Errorf("%s is damaged", addressesFile)
	}
	if book.Version > AddressesVersion {
		return addressBook{}, fmt.Errorf("%w: %s has format %d, this one knows up to %d", ErrNewer, addressesFile, book.Version, AddressesVersion)
	}
	return book, nil
}
