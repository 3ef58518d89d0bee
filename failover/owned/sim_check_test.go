package owned

import (
	"slices"

	"github.com/watershed-db/watershed/failover/ownership"
)

// check holds a region to the model.
func (w *world) check(r *region) {
	w.t.Helper()
	rd := r.store.read(w.t)
	if rd.Held() != r.last() {
		w.t.Fatalf("holds %d, not %d", rd.Held(), r.last())
	}
	for _, at := range []ownership.Position{r.last(), r.confirmed} {
		m, _ := play(r.log[:at-1])
		if err := sameRows(m.shows(), rows(w.t, rd, at, simTables...)); err != nil {
			w.t.Fatalf("rows at %d of %d:\n%v", at, r.last(), err)
		}
	}
	m, _ := play(r.log)
	for _, op := range w.sent {
		got, ok, err := rd.Outcome(op.Names())
		want, known := m.outcomes[op.Names()]
		want.Again = known
		if err != nil || ok != known || got != want {
			w.t.Fatalf("outcome of %v is %+v %v %v, not %+v %v", op.Names(), got, ok, err, want, known)
		}
	}
	sum, err := rd.Rows(func(_, _ []byte) {})
	if err != nil || sum != rd.held {
		w.t.Fatalf("head is %+v, the values sum up to %+v, %v", rd.held, sum, err)
	}
	w.checkTables(rd)
	w.checkDigest(r, rd)
	w.checkLedger(r, rd)
}

// checkTables compares the list of tables with where rows are stored, those that were removed lately among them.
func (w *world) checkTables(rd *Reader) {
	got, err := rd.Tables(9)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, id := range simTables {
		list, err := rd.TableRows(id)
		if err != nil || len(list) > 0 && !slices.Contains(got, id) || len(got) > len(simTables) {
			w.t.Fatalf("table %x has %d rows, the tables are %x, %v", id, len(list), got, err)
		}
	}
}

// checkDigest compares the digest with that of other regions at the same entry, and a state that is handed out with it.
func (w *world) checkDigest(r *region, rd *Reader) {
	at := rd.local.dropped + ownership.Position(w.rng.IntN(int(r.last()-rd.local.dropped)+1))
	x, err := rd.Export(at)
	if err != nil {
		w.t.Fatal(err)
	}
	if at > 1 {
		m := r.log[at-2].mark
		if d, ok := w.digests[m]; ok && d != x.Digest() {
			w.t.Fatalf("states at %v have digests %x and %x", m, d, x.Digest())
		}
		w.digests[m] = x.Digest()
	}
	to, m := store{}, mark(9, uint64(at))
	to.command(w.t, func(l *Log) { l.Stage(m, x.Digest()) })
	for n := uint32(0); ; n++ {
		b, err := x.Next(1 + w.rng.IntN(500))
		if err != nil {
			w.t.Fatal(err)
		}
		if b == nil {
			break
		}
		to.command(w.t, func(l *Log) { l.Fill(2, n, b) })
	}
	to.command(w.t, func(l *Log) { l.Install(m, false, m.Epoch) })
	state, _ := play(r.log[:at-1])
	if err := sameRows(state.shows(), rows(w.t, to.read(w.t), at, simTables...)); err != nil {
		w.t.Fatalf("rows handed out at %d:\n%v", at, err)
	}
}

func (w *world) checkLedger(r *region, rd *Reader) {
	got := map[ID]bool{}
	for behind := uint64(0); ; {
		list, next, err := rd.Conflicts(behind, 3)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, c := range list {
			got[c.Op.Names()] = true
			if !r.ledger[c.Op.Names()] {
				w.t.Fatalf("the ledger holds %v, which stands or never was", c.Op.Names())
			}
			if x, ok, err := rd.Conflict(c.Mark); err != nil || !ok || x.Op.ID != c.Op.ID {
				w.t.Fatalf("ledger entry %v is %v %v %v", c.Mark, x, ok, err)
			}
		}
		if behind = next; next == 0 {
			break
		}
	}
	for id := range r.ledger {
		if !got[id] {
			w.t.Fatalf("the ledger lacks %v", id)
		}
	}
	if s, err := rd.Sizes(r.confirmed); err != nil || int(s.Ledger) != len(got) || int(s.Conflicts) != len(got) {
		w.t.Fatalf("sizes are %+v %v, the ledger has %d entries", s, err, len(got))
	}
}
