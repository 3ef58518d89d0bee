package service

import (
	"errors"
	"fmt"
	"math"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/processor/job"
	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
	"github.com/watershed-db/watershed/region/replica"
	"github.com/watershed-db/watershed/region/shard"
)

func toValue(v crdt.Value) *watershedv1.Value {
	switch v.Kind() {
	case crdt.KindNull:
		return &watershedv1.Value{}
	case crdt.KindBool:
		return &watershedv1.Value{Kind: &watershedv1.Value_Bool{Bool: v.Bool()}}
	case crdt.KindInt:
		return &watershedv1.Value{Kind: &watershedv1.Value_Int{Int: v.Int()}}
	case crdt.KindFloat:
		return &watershedv1.Value{Kind: &watershedv1.Value_Float{Float: v.Float()}}
	case crdt.KindBig:
		return &watershedv1.Value{Kind: &watershedv1.Value_Big{Big: v.Text()}}
	default:
		return &watershedv1.Value{Kind: &watershedv1.Value_Text{Text: v.Text()}}
	}
}

func toValues(vs []crdt.Value) []*watershedv1.Value {
	out := make([]*watershedv1.Value, len(vs))
	for i, v := range vs {
		out[i] = toValue(v)
	}
	return out
}

// fromValue takes a value from outside that a key may have.
func fromValue(v *watershedv1.Value) (crdt.Value, error) {
	switch k := v.GetKind().(type) {
	case nil:
		return crdt.Null(), nil
	case *watershedv1.Value_Bool:
		return crdt.Bool(k.Bool), nil
	case *watershedv1.Value_Int:
		return crdt.Int(k.Int), nil
	case *watershedv1.Value_Float:
		if math.IsNaN(k.Float) || math.IsInf(k.Float, 0) {
			return crdt.Value{}, fmt.Errorf("%v is no value", k.Float)
		}
		return crdt.Float(k.Float), nil
	case *watershedv1.Value_Text:
		return crdt.Text(k.Text), nil
	default:
		return crdt.Value{}, errors.New("an integer beyond 64 bits is in no key")
	}
}

// rankOf returns the value that rows are ranked by, and whether there is one: null is none.
func rankOf(v *watershedv1.Value) (crdt.Value, bool) {
	if big, ok := v.GetKind().(*watershedv1.Value_Big); ok {
		return crdt.Big(big.Big), true
	}
	out, err := fromValue(v)
	return out, err == nil && !out.IsNull()
}

func toRow(r *job.Row, id uint32) *watershedv1.Row {
	out := &watershedv1.Row{
		Key: toValues(r.KeyValues), Values: toValues(r.Values), Revision: r.Revision, Complete: r.Complete, Shard: id,
	}
	if !r.Global() {
		start, end := r.Start, r.End
		out.WindowStartMs, out.WindowEndMs = &start, &end
	}
	return out
}

func toPoint(s crdt.Source, p crdt.Point) *watershedv1.SourcePoint {
	return &watershedv1.SourcePoint{
		Input: uint32(s.Input), Region: string(s.Region), Topic: s.Topic, Partition: s.Partition, Incarnation: s.Incarnation,
		Offset: p.Offset, WatermarkMs: p.Watermark, Chain: p.Chain[:], Last: p.Last[:], Counts: p.Counts[:],
	}
}

func fromSource(p *watershedv1.SourcePoint) crdt.Source {
	return crdt.Source{
		Input: uint16(p.GetInput()), Region: crdt.RegionID(p.GetRegion()), Topic: p.GetTopic(), Partition: p.GetPartition(),
		Incarnation: p.GetIncarnation(),
	}
}

// toShardState says what an answer from a state reflects.
func toShardState(r *replica.Replica, region string, st *shard.State, g *shard.Generation) *watershedv1.ShardState {
	out := &watershedv1.ShardState{
		Shard: uint32(r.Shard()), Region: region, AppliedIndex: st.Index, WatermarkMs: g.Watermark, HorizonMs: g.Horizon,
		Generation: g.ID[:], StalenessMs: r.Staleness().Milliseconds(),
	}
	points := g.Points()
	for _, s := range points.Sources() {
		out.Points = append(out.Points, toPoint(s, points[s]))
	}
	for _, x := range st.Unreachable {
		out.Missing = append(out.Missing, string(x))
	}
	return out
}

func toColumns(j *job.Job) *watershedv1.Columns {
	out := &watershedv1.Columns{Key: j.KeyNames}
	for _, a := range j.Aggregates {
		out.Values = append(out.Values, a.Name)
	}
	for _, d := range j.Derived {
		out.Values = append(out.Values, d.Name)
	}
	return out
}
