package shard

import (
	"strings"

	"github.com/watershed-db/watershed/crdt"
	"github.com/watershed-db/watershed/keyspace/table"
	"github.com/watershed-db/watershed/processor/job"
)

// command reads the line of a command; nil for an unknown one.
func (sc *scenario) command(verb string, a *args) Command {
	switch verb {
	case "job", "update":
		return sc.generation(verb, a)
	case "drop":
		return &DropGeneration{a.generation()}
	case "sources": // sources G group partition[:point]...
		c := &AddSources{Generation: a.generation(), Group: crdt.RegionID(a.next())}
		c.Sources = a.points(string(c.Group), a.words)
		return c
	case "advance": // advance G group partition:from->to... slots=...
		return sc.advance(a)
	case "horizon":
		return &Horizon{a.generation(), a.int(a.next())}
	case "idle", "active": // idle G group partition:point...
		c := &Idle{Generation: a.generation(), Idle: verb == "idle"}
		for _, sp := range a.points(a.next(), a.words) {
			c.Sources = append(c.Sources, SourceMark{sp.Source, sp.Point.Mark()})
		}
		return c
	case "reach": // reach unreachable=b excluded=g1:b
		c := &Reach{Unreachable: a.regions(a.named["unreachable"])}
		if g, regions, ok := strings.Cut(a.named["excluded"], ":"); ok {
			id := GenerationOf(1, uint64(a.int(strings.TrimPrefix(g, "g"))))
			c.Excluded = []Exclusion{{id, a.regions(regions)}}
		}
		return c
	case "plan": // plan G n to [partial]
		return &Plan{Generation: a.generation(), N: uint64(a.int(a.next())), To: a.int(a.next()), Partial: len(a.words) > 0}
	case "done": // done G n [index=i] end/key...
		c := &Done{Generation: a.generation(), N: uint64(a.int(a.next())), Index: sc.at}
		for _, w := range a.words {
			end, key, _ := strings.Cut(w, "/")
			c.Marks = append(c.Marks, DirtyMark{End: a.int(end), Key: keyOf(key)})
		}
		return c
	case "check":
		return sc.m.NewCheck()
	}
	if c := sc.staging(verb, a); c != nil {
		return c
	}
	if c := sc.owned(verb, a); c != nil {
		return c
	}
	if c := tableCommand(verb, a); c != nil {
		return c
	}
	return sc.registry(verb, a)
}

func (sc *scenario) generation(verb string, a *args) Command {
	n := int(a.int(strings.TrimPrefix(a.next(), "g")))
	file := sc.jobOf(a)
	j, err := job.Parse("scenario", file)
	if err != nil {
		a.t.Fatalf("job: %v", err)
	}
	if verb == "job" {
		sc.jobs[n] = j
		return &AddGeneration{ID: GenerationOf(1, uint64(n)), Name: "count", File: file, Meaning: j.Meaning(), Pinned: j.Builtins()}
	}
	return &UpdateGeneration{GenerationOf(1, uint64(n)), file, j.Meaning()}
}

func (a *args) points(group string, words []string) (list []SourcePoint) {
	for _, w := range words {
		p, at, _ := strings.Cut(w, ":")
		s := a.source(group, p)
		list = append(list, SourcePoint{s, a.position(s, at)})
	}
	return list
}

func (sc *scenario) jobFor(id crdt.GenerationID) *job.Job {
	for n, j := range sc.jobs {
		if GenerationOf(1, uint64(n)) == id {
			return j
		}
	}
	j, err := job.Parse("unknown", jobFile("{tumbling: 10ms}"))
	if err != nil {
		sc.t.Fatal(err)
	}
	return j
}

func (sc *scenario) advance(a *args) Command {
	c := &Advance{}
	c.Generation, c.Group = a.generation(), crdt.RegionID(a.next())
	for _, w := range a.words {
		p, rest, _ := strings.Cut(w, ":")
		from, to, _ := strings.Cut(rest, "->")
		s := a.source(string(c.Group), p)
		c.Ranges = append(c.Ranges, crdt.Range{Source: s, From: a.position(s, from).Mark(), To: a.position(s, to)})
	}
	c.Deltas = a.deltas(sc.jobFor(c.Generation), a.named["slots"])
	return c
}

func (sc *scenario) staging(verb string, a *args) Command {
	switch verb {
	case "stage":
		return &StageBegin{a.generation(), crdt.RegionID(a.next())}
	case "chunk": // chunk G group copy number slots=...
		c := &StageChunk{Generation: a.generation(), Group: crdt.RegionID(a.next())}
		c.Copy, c.Number = uint32(a.int(a.next())), uint32(a.int(a.next()))
		c.Deltas = a.deltas(sc.jobFor(c.Generation), a.named["slots"])
		return c
	case "abandon":
		return &StageAbandon{a.generation(), crdt.RegionID(a.next()), uint32(a.int(a.next()))}
	case "install": // install G group copy chunks=n horizon=h [confirmed=partition:point,...] partition:to...
		c := &Install{}
		c.Generation, c.Group, c.Copy = a.generation(), crdt.RegionID(a.next()), uint32(a.int(a.next()))
		c.Chunks, c.Horizon, c.To = uint32(a.int(a.named["chunks"])), a.int(a.named["horizon"]), crdt.Frontier{}
		for _, sp := range a.points(string(c.Group), a.words) {
			c.To[sp.Source] = sp.Point
		}
		confirmed := strings.FieldsFunc(a.named["confirmed"], func(r rune) bool { return r == ',' })
		for _, sp := range a.points(string(c.Group), confirmed) {
			c.Confirmed = append(c.Confirmed, SourceMark{sp.Source, sp.Point.Mark()})
		}
		return c
	}
	return nil
}

func tableOf(name, kind string) table.Def {
	d, err := table.Parse("scenario", []byte("{name: "+name+", type: "+kind+"}"))
	if err != nil {
		panic(err)
	}
	return d
}

func (sc *scenario) registry(verb string, a *args) Command {
	switch verb {
	case "apply": // apply name window=... [sink]
		name, file := a.next(), sc.jobOf(a)
		j, err := job.Parse("scenario", file)
		if err != nil {
			a.t.Fatalf("job: %v", err)
		}
		return &JobApply{Epoch: 1, Name: name, File: file, Meaning: j.Meaning(), Pinned: j.Builtins()}
	case "delete":
		return &JobDelete{Epoch: 1, Name: a.next()}
	case "copy": // copy position:op:name...
		c := &RegistryCopy{}
		for _, w := range a.words {
			f := strings.Split(w, ":")
			e := Entry{Epoch: 1, Position: uint64(a.int(f[0])), Op: EntryOp(strings.Index("?audtr", f[1])), Name: f[2]}
			e.Generation = GenerationOf(1, e.Position)
			if e.Op >= TableAdded {
				e.Table = tableOf(f[2], "set")
			}
			if len(f) > 3 {
				e.Generation = GenerationOf(1, uint64(a.int(strings.TrimPrefix(f[3], "g"))))
			}
			c.Entries = append(c.Entries, e)
		}
		return c
	case "table": // table name type
		d := tableOf(a.next(), a.next())
		return &RegisterTable{Epoch: 1, File: []byte(d.Name), Def: d}
	case "untable":
		return &UnregisterTable{Epoch: 1, Name: a.next()}
	case "tell": // tell at id:name:type...
		c := &TellTables{At: table.IDOf(1, uint64(a.int(a.next())))}
		for _, w := range a.words {
			f := strings.Split(w, ":")
			c.Live = append(c.Live, LiveTable{table.IDOf(1, uint64(a.int(f[0]))), tableOf(f[1], f[2])})
		}
		return c
	case "decide": // decide G group partition:point...
		c := &SourcesDecided{Generation: a.generation()}
		for _, sp := range a.points(a.next(), a.words) {
			c.Sources = append(c.Sources, Decided{sp, "topic"})
		}
		return c
	case "stop": // stop G group partition reason
		id, group := a.generation(), a.next()
		return &SourceStopped{id, a.source(group, a.next()), a.next()}
	}
	return nil
}
