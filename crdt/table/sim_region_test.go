package table

import (
	"maps"
	"slices"
)

// exchange has r take what s holds: entry by entry, or as state where its logs don't reach.
func (w *world) exchange(r, s *region) {
	if r == s || r.cutAt != 0 || s.cutAt != 0 {
		return
	}
	var missing []entry
	for _, a := range slices.Sorted(maps.Keys(s.marks)) {
		from := r.marks[a].Position
		n := int(s.marks[a].Position) - int(from)
		if n > len(s.log[a]) {
			w.joinState(r, s)
			return
		}
		if n > 0 {
			missing = append(missing, s.log[a][len(s.log[a])-n:]...)
		}
	}
	w.rng.Shuffle(len(missing), func(i, j int) {
		missing[i], missing[j] = missing[j], missing[i]
	})
	for len(missing) > 0 {
		missing = slices.DeleteFunc(missing, func(e entry) bool { return w.follow(r, e) })
	}
	w.admit(r)
}

// follow takes an entry if it is the next one of its actor.
func (w *world) follow(r *region, e entry) bool {
	if !r.marks.Follow(e.actor, e.mark) {
		if e.mark.Position <= r.marks[e.actor].Position {
			w.t.Fatalf("entry %v again", e)
		}
		return false
	}
	r.log[e.actor] = append(r.log[e.actor], e)
	if e.op != nil {
		if e.op.ID.Session.Born < r.sessions.Floor() && r.held[e.op.ID] == nil {
			w.t.Fatalf("%s comes below the floor %d", e.op.ID, r.sessions.Floor())
		}
		w.take(r, e.op)
	}
	return true
}

// joinState takes all that s holds, of keys that either has.
func (w *world) joinState(r, s *region) {
	w.count("by state")
	for key := range simKeys {
		v, theirs := r.value(key), s.value(key)
		before := string(theirs.Append(nil))
		if v.Join(theirs); string(theirs.Append(nil)) != before {
			w.t.Fatal("a join changed its argument")
		}
		r.values[key] = v
	}
	r.sessions.Join(s.sessions)
	r.marks.Join(s.marks)
	r.log = map[Actor][]entry{} // what was joined came without entries
	maps.Copy(r.held, s.held)
	for key := range simKeys {
		w.check(r, key)
	}
	w.admit(r)
}

// admit has a region that has come back write again, once it holds all that the floor was told with.
func (w *world) admit(r *region) {
	if !r.admitted && w.adopt(r) {
		w.begin(r)
	}
}

// adopt raises a region's floor to the registry's.
func (w *world) adopt(r *region) bool {
	if !r.marks.Covers(w.need) {
		return false
	}
	r.sessions.Raise(w.floor)
	return true
}

// raise is what a connected region does with the registry: it tells its mark, has departed actors sealed, raises the
// floor as far as all members allow, and its own with it.
func (w *world) raise(r *region) {
	if r.cutAt != 0 {
		return
	}
	if r.admitted {
		w.told[r.actor] = r.marks[r.actor]
	}
	w.seal()
	if floor := w.told.Floor(append(slices.Clone(w.departed), w.members...)); floor > w.floor {
		w.count("floor")
		w.floor, w.need = floor, maps.Clone(w.told)
	}
	w.adopt(r)
}

// seal fixes where the histories of actors that have left end, once every region can say how far it holds them; and again
// where the last region that held one so far is lost as well.
func (w *world) seal() {
	for _, r := range w.regions {
		if r.cutAt != 0 && !r.removed {
			return
		}
	}
	for _, a := range slices.Collect(maps.Keys(w.told)) {
		if slices.Contains(w.members, a) {
			continue
		}
		seal := Marks{}
		for _, r := range w.regions {
			if !r.removed {
				seal.Join(Marks{a: r.marks[a]})
			}
		}
		w.told[a] = seal[a]
		if w.need[a].Position > seal[a].Position { // what it told of was lost with it
			w.need[a] = seal[a]
		}
	}
	w.departed = nil
}

// void reports whether a copy goes beyond where an actor's history was sealed, so that nobody may take anything from it.
func (w *world) void(r *region) bool {
	for a, mark := range r.marks {
		if mark.Position > w.told[a].Position && !slices.Contains(w.members, a) && !slices.Contains(w.departed, a) {
			return true
		}
	}
	return false
}

func (r *region) clone() *region {
	c := newRegion()
	c.actor, c.admitted = r.actor, r.admitted
	c.marks = maps.Clone(r.marks)
	c.sessions.Join(r.sessions)
	c.sessions.Close(r.sessions.Closed())
	for key, v := range r.values {
		c.values[key] = New(simKeys[key], 0)
		c.values[key].Join(v)
	}
	c.held = maps.Clone(r.held)
	for a, log := range r.log {
		c.log[a] = slices.Clone(log)
	}
	return c
}

// restore loses a region's disks and brings it back from an old copy, or from nothing: under a new number, and taking no
// writes until it holds what the others rely on.
func (w *world) restore(i int) {
	old := w.regions[i]
	if old.cutAt != 0 {
		return
	}
	r := newRegion()
	w.count("rebuilt")
	if n := len(old.copies); n > 0 && w.rng.IntN(4) > 0 {
		if c := old.copies[w.rng.IntN(n)]; !w.void(c) {
			w.count("restored")
			r = c
		}
	}
	r.skew = old.skew
	w.replace(i, r, "lost")
	if _, err := w.told.Begin(old.actor, 0); err == nil { // the seeded bug: it goes on as if nothing had happened
		r.actor, r.admitted = old.actor, true
		return
	}
	w.leave(old.actor)
	w.enter(r)
}

// replace puts another copy in a region's place, and counts what no region holds any more.
func (w *world) replace(i int, r *region, how string) {
	old := w.regions[i]
	w.regions[i] = r
	for id := range old.held {
		if !slices.ContainsFunc(w.regions, func(s *region) bool { return s.held[id] != nil }) {
			w.lost[id] = true
			w.count(how)
		}
	}
}

func (w *world) leave(a Actor) {
	w.members = slices.DeleteFunc(w.members, func(b Actor) bool { return a == b })
	w.departed = append(w.departed, a)
}

// enter makes a region a member under a number that was never given. It takes writes once it is admitted.
func (w *world) enter(r *region) {
	r.admitted, r.copies = false, nil
	w.join(r, slices.Max(slices.Collect(maps.Keys(w.told)))+1)
}

// remove has the others go on without a region that is cut off. It goes on as well, and does not know.
func (w *world) remove(r *region) {
	if r.cutAt != 0 && !r.removed && len(w.members) > 2 {
		r.removed = true
		w.leave(r.actor)
	}
}

// takeBack has a removed region return as a new one: with what it holds, or with nothing where that goes beyond its seal.
func (w *world) takeBack(i int) {
	r := w.regions[i]
	w.count("taken back")
	if w.void(r) {
		r = newRegion()
		w.replace(i, r, "given up")
	}
	r.removed = false
	w.enter(r)
}
