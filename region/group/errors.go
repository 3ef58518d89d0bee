package group

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

var (
	// ErrNotLeader is what every *NotLeaderError is: this node doesn't lead the group, and nothing was proposed.
	ErrNotLeader = errors.New("not the leader")
	// ErrUnavailable says that the group gave no answer within the bound, for want of a leader or of a majority. Alone it
	// means that the command will not apply; together with ErrIndefinite it may.
	ErrUnavailable = errors.New("group unavailable")
	// ErrIndefinite says that the command may yet apply, or not: only its effects can tell.
	ErrIndefinite = errors.New("outcome unknown: the command may yet apply")
	// ErrStopped says that the group was stopped here. A command that was under way has ErrIndefinite too.
	ErrStopped = errors.New("group stopped")
	// ErrTooLarge says that a command is larger than Config.MaxCommand. Nothing was proposed.
	ErrTooLarge = errors.New("command too large")

	// ErrLocked says that another process has the node's folder open.
	ErrLocked = errors.New("folder is in use by another process")
	// ErrReadOnly says that the node's folder can't be written to.
	ErrReadOnly = errors.New("folder is not writable")
	// ErrPortInUse says that something else listens on the node's Raft address.
	ErrPortInUse = errors.New("address is in use")

	// ErrStateBehind says that a machine lacks commands that its log no longer holds and no snapshot covers: its store
	// was lost or replaced. ErrStateAhead says that it holds commands that the log never saw: the log was.
	ErrStateBehind = errors.New("state is behind the log")
	// ErrStateAhead is explained with ErrStateBehind.
	ErrStateAhead = errors.New("state is ahead of the log")

	// ErrLogDamaged says that the node's Raft log, which all its groups share, is not what was written: the node may have
	// forgotten what it acknowledged, and must not vote under its name any more.
	ErrLogDamaged = errors.New("the node's Raft log is damaged: remove its data folder and add the node under a new id")

	// ErrAlone says that a group with one member has nobody to be rebuilt from.
	ErrAlone = errors.New("the region has no other node")

	// ErrStalled says that a call of the node's stores took longer than Config.StoreTimeout, after which all later ones fail
	// too; with ErrUnavailable, that one has taken longer than Config.StallTimeout and nothing is proposed or read meanwhile.
	ErrStalled = errors.New("disk stalled")
	// ErrNewer marks what a newer build has written or said: the message says both versions.
	ErrNewer = errors.New("newer than this build")
	// ErrCorrupt marks stored bytes that can't be what was written.
	ErrCorrupt = errors.New("corrupt")
)

// NotLeaderError says that another node leads the group, and which one as far as this node knows. Nothing was proposed,
// so the command may be sent to the leader. It is ErrNotLeader.
type NotLeaderError struct {
	Leader Member // zero where no leader is known
}

// Error names the leader.
func (e *NotLeaderError) Error() string {
	if e.Leader.ID == "" {
		return "not the leader, and none is known"
	}
	return fmt.Sprintf("not the leader: that is %s at %s", e.Leader.ID, e.Leader.Address)
}

// Is makes the error match ErrNotLeader.
func (e *NotLeaderError) Is(target error) bool { return target == ErrNotLeader }

// proposeError sorts what Raft says of a command that was handed to it.
func (g *Group) proposeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader):
		return &NotLeaderError{Leader: g.Leader()}
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: leadership is moving", ErrUnavailable)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%w: %w", ErrUnavailable, ErrIndefinite)
	case errors.Is(err, raft.ErrRaftShutdown):
		return fmt.Errorf("%w: %w", ErrStopped, ErrIndefinite)
	default: // leadership lost, a failed store: it may stand in some logs
		return fmt.Errorf("%w: %w", ErrIndefinite, err)
	}
}

// readError sorts what Raft says of a barrier or a check of leadership: nothing can have been changed by those.
func (g *Group) readError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost):
		return &NotLeaderError{Leader: g.Leader()}
	case errors.Is(err, raft.ErrRaftShutdown), errors.Is(err, ErrStopped):
		return ErrStopped
	default:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
}
