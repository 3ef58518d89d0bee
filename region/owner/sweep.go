package owner

import (
	"context"
	"errors"
	"time"

	"github.com/watershed-db/watershed/failover/owned"
	"github.com/watershed-db/watershed/failover/ownership"
	"github.com/watershed-db/watershed/keyspace/table"
)

const (
	// sweepEvery is how often an owner looks for rows and sessions that are over.
	sweepEvery = time.Second
	// maxTables bounds the tables that are looked at for being dropped, each time.
	maxTables = 1 << 12
)

// sweeps removes what is over in the shard's owned tables, while this leadership lasts and the region owns the shard: rows
// that have expired, sessions that have ended, rows of tables that were dropped.
func (l *leading) sweeps() {
	for rest(l.ctx, sweepEvery) == nil {
		for more := true; more && l.ctx.Err() == nil; {
			var err error
			if more, err = l.sweep(); err != nil && l.ctx.Err() == nil {
				l.logger.Debug("owned tables can't be swept", "error", err)
			}
		}
	}
}

// sweep removes as much as one entry may, and says whether there was more.
func (l *leading) sweep() (more bool, err error) {
	if l.shown.Load().Standing() != ownership.Owning {
		return false, nil
	}
	op, more, err := l.over(l.o.Now())
	if err != nil || len(op.Expired)+len(op.Sessions)+len(op.Dropped) == 0 {
		return false, err
	}
	ctx, cancel := context.WithTimeout(l.ctx, stepWithin)
	defer cancel()
	_, err = l.Write(ctx, op.Append(nil), false)
	return more && err == nil, err
}

// over returns what is over.
func (l *leading) over(now time.Time) (op owned.Op, more bool, err error) {
	snap, err := l.o.Replica.Snapshot()
	if err != nil {
		return op, false, err
	}
	defer func() { err = errors.Join(err, snap.Close()) }()
	r, err := snap.Owned()
	if err != nil {
		return op, false, err
	}
	if op, more, err = r.Sweep(now.UnixMilli(), now.Add(-l.o.SessionLife).UnixMilli()); err != nil || more {
		return op, more, err
	}
	tables, err := r.Tables(maxTables)
	if err != nil {
		return op, false, err
	}
	for _, id := range tables {
		if !snap.Told().Dropped(table.ID(id)) {
			continue
		}
		if op.Dropped, err = r.TableRows(id); err != nil || len(op.Dropped) > 0 {
			return op, true, err
		}
	}
	return op, false, nil
}
