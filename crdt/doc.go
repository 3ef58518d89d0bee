// Package crdt holds what regions exchange and agree on: values, accumulators, cells, points and advances, with their
// compact encodings. It is pure: no I/O, no clock, no randomness, no map order in any result.
//
// Laws that every merge in this package keeps, over any values a, b, c of one type:
//
//	idempotent where it joins points and horizons: join(a, a) = a
//	commutative:  merge(a, b) = merge(b, a)
//	associative:  merge(merge(a, b), c) = merge(a, merge(b, c))
//
// Accumulators add, so merging one contribution twice counts it twice; that a contribution is merged once is the work
// of points, never of accumulators.
package crdt

import "math"

// Times are milliseconds since 1970-01-01 UTC.
const (
	// MinTime stands for "no event seen yet"; every event time is above it.
	MinTime int64 = math.MinInt64
	// MaxTime is the watermark of a source that has ended, and the bound of the global window.
	MaxTime int64 = math.MaxInt64
)

// RegionID names a region of a deployment, [a-z0-9-]{1,63}.
type RegionID string

// GenerationID names one life of a job: the (epoch, position) of its registry entry, big-endian, 16 bytes.
type GenerationID [16]byte
