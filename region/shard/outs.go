package shard

import (
	"sort"
	"sync"
)

// keptOuts is how many of the latest commands that other regions want are known without a look at the store.
const keptOuts = 1 << 13

// outs are the latest out markers, in memory. It is safe for any goroutine.
type outs struct {
	mu   sync.Mutex
	from uint64 // the list is complete above it
	last uint64 // up to here
	list []Out
}

func (o *outs) reset(index uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.from, o.last, o.list = index, index, nil
}

// put notes a command; its kind is 0 for one that nobody wants.
func (o *outs) put(out Out) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = out.Index
	if out.Kind == 0 {
		return
	}
	if len(o.list) == 2*keptOuts {
		o.from = o.list[keptOuts-1].Index
		o.list = append([]Out(nil), o.list[keptOuts:]...)
	}
	o.list = append(o.list, out)
}

// LatestOuts lists, in order, at most limit of the commands above an index that other regions want, and the index up to
// which the list tells all. It is not ok where it does not reach that far back: then Snapshot.OutAfter does, if anything.
func (m *Machine) LatestOuts(index uint64, limit int) (list []Out, to uint64, ok bool) {
	o := &m.outs
	o.mu.Lock()
	defer o.mu.Unlock()
	if index < o.from {
		return nil, 0, false
	}
	rest := o.list[sort.Search(len(o.list), func(i int) bool { return o.list[i].Index > index }):]
	if len(rest) > limit {
		rest = rest[:limit]
		return append(list, rest...), rest[limit-1].Index, true
	}
	return append(list, rest...), max(o.last, index), true
}
