package router

import (
	"fmt"
	"math"

	"github.com/watershed-db/watershed/crdt"
	regionv1 "github.com/watershed-db/watershed/proto/watershed/region/v1"
	"github.com/watershed-db/watershed/region/shard"
)

// EncodeResult returns a command's result as it travels.
func EncodeResult(r shard.Result) *regionv1.Result {
	out := &regionv1.Result{
		Index: r.Index, Outcome: uint32(r.Outcome), Reason: r.Reason, Copy: r.Copy, Generation: r.Generation[:],
		Refusal: uint32(r.Refusal),
	}
	for _, sp := range r.Points {
		out.Points = append(out.Points, crdt.AppendPoint(crdt.AppendSource(nil, sp.Source), sp.Point))
	}
	for _, s := range r.Sources {
		out.Sources = append(out.Sources, crdt.AppendSource(nil, s))
	}
	return out
}

// DecodeResult takes a result from another node. It fails where that is malformed.
func DecodeResult(m *regionv1.Result) (shard.Result, error) {
	r := shard.Result{Index: m.GetIndex(), Reason: m.GetReason(), Copy: m.GetCopy()}
	if o := m.GetOutcome(); o < uint32(shard.Applied) || o > math.MaxUint8 {
		return shard.Result{}, fmt.Errorf("decode result: outcome %d is unknown", o)
	}
	r.Outcome = shard.Outcome(m.GetOutcome())
	if m.GetRefusal() > math.MaxUint8 {
		return shard.Result{}, fmt.Errorf("decode result: refusal %d is unknown", m.GetRefusal())
	}
	r.Refusal = shard.Refusal(m.GetRefusal())
	if g := m.GetGeneration(); len(g) == len(r.Generation) {
		r.Generation = crdt.GenerationID(g)
	} else {
		return shard.Result{}, fmt.Errorf("decode result: a generation of %d bytes", len(g))
	}
	for _, b := range m.GetPoints() {
		s, rest, err := crdt.CutSource(b)
		if err != nil {
			return shard.Result{}, fmt.Errorf("decode result: %w", err)
		}
		p, err := crdt.DecodePoint(rest)
		if err != nil {
			return shard.Result{}, fmt.Errorf("decode result: %w", err)
		}
		r.Points = append(r.Points, shard.SourcePoint{Source: s, Point: p})
	}
	for _, b := range m.GetSources() {
		s, rest, err := crdt.CutSource(b)
		if err == nil && len(rest) > 0 {
			err = fmt.Errorf("%d bytes left over", len(rest))
		}
		if err != nil {
			return shard.Result{}, fmt.Errorf("decode result: %w", err)
		}
		r.Sources = append(r.Sources, s)
	}
	return r, nil
}
