package group

import (
	"errors"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// book knows where the region's nodes are, whatever a group's stored configuration says, and which ones were removed from
// the region.
type book struct {
	mu        sync.RWMutex
	addresses map[string]string
	removed   map[string]bool
}

var _ raft.ServerAddressProvider = (*book)(nil)

var errUnknownMember = errors.New("not among the nodes that are known")

func newBook(members []Member) *book {
	b := &book{addresses: map[string]string{}, removed: map[string]bool{}}
	b.learn(members, nil)
	return b
}

// learn takes over what is known of nodes, and returns those of the removed ones that were not known to be.
func (b *book) learn(members []Member, removed []string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range members {
		b.addresses[m.ID] = m.Address
	}
	news := slices.DeleteFunc(slices.Clone(removed), func(id string) bool { return b.removed[id] })
	for _, id := range news {
		b.removed[id] = true
	}
	return news
}

func (b *book) isRemoved(id string) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.removed[id]
}

// others says whether there is a node besides id that was not removed.
func (b *book) others(id string) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for other := range b.addresses {
		if other != id && !b.removed[other] {
			return true
		}
	}
	return false
}

// member returns a node by its id, at address where it is not known better.
func (b *book) member(id, address string) Member {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if known, ok := b.addresses[id]; ok {
		address = known
	}
	return Member{ID: id, Address: address}
}

// ServerAddr tells Raft's transport where a node is.
func (b *book) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if address, ok := b.addresses[string(id)]; ok {
		return raft.ServerAddress(address), nil
	}
	return "", errUnknownMember
}

// Learn tells the host where the region's nodes are, and which were removed from it: those are turned away from here on,
// by name, and their connections are ended.
func (h *Host) Learn(members []Member, removed []string) {
	news := h.book.learn(members, removed)
	if len(news) > 0 {
		h.listener.hangUp(news)
	}
}
