package group

import (
	"sync"

	"github.com/hashicorp/raft"
)

// AppendEntriesPipeline returns a pipeline that keeps back what it is given while the disk stalls, and that ends with the
// first answer that ends it.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	under, err := t.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	p := &pipeline{under: under, transport: t, id: id, target: target, done: make(chan raft.AppendFuture), closed: make(chan struct{})}
	go p.pass()
	return p, nil
}

// pipeline sends entries to a follower without waiting for the answers. Raft stops reading those at the first one that is not
// a success, and closes the pipeline when it is back from sending. But sending waits until an answer before was read: with
// the few requests that are under way at a time it would wait for ever, nothing would reach the follower any more, and the
// group would not stop. So what Raft reads passes here, and the pipeline is closed behind such an answer.
type pipeline struct {
	under     raft.AppendPipeline
	transport *transport
	id        raft.ServerID
	target    raft.ServerAddress
	done      chan raft.AppendFuture
	closing   sync.Once
	closed    chan struct{}
	closeErr  error
}

// AppendEntries sends entries without waiting for the answer.
func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if err := p.transport.hold(args.Term); err != nil {
		return nil, err
	}
	p.transport.notices.sent(p.id, p.target, args)
	return p.under.AppendEntries(args, resp)
}

// Consumer returns the answers, in the order of the requests.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.done }

// Close ends the pipeline, and the sending that waits. It may be called twice.
func (p *pipeline) Close() error {
	p.closing.Do(func() {
		close(p.closed)
		p.closeErr = p.under.Close()
	})
	return p.closeErr
}

// pass hands answers on until the pipeline is closed or to be.
func (p *pipeline) pass() {
	for {
		select {
		case f := <-p.under.Consumer():
			ends := f.Error() != nil || !f.Response().Success
			select {
			case p.done <- f:
			case <-p.closed:
				return
			}
			if ends {
				p.Close() // Raft asks again, and gets the error
				return
			}
		case <-p.closed:
			return
		}
	}
}
