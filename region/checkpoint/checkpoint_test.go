package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/watershed-db/watershed/region/checkpoint/objects"
)

func TestOnlyNewTablesAreSent(t *testing.T) {
	w := newWorld(t, new(objects.Memory), 2, "n1")
	k := w.keeper("n1", Policy{})
	w.writeAll(3)
	one, err := k.Checkpoint(t.Context())
	if err != nil || one.ID != 1 {
		t.Fatal(one, err)
	}
	uploads := 0
	w.store.Hook = func(method, key string) error {
		if method == "Upload" && strings.Contains(key, "/tables/") {
			uploads++
		}
		return nil
	}
	same, err := k.Checkpoint(t.Context())
	if err != nil || same.ID != 1 || uploads != 0 {
		t.Fatalf("nothing changed, and yet %d uploads, cut %d: %v", uploads, same.ID, err)
	}
	w.write(1, 1)
	two, err := k.Checkpoint(t.Context())
	if err != nil || two.ID != 2 || two.Parts[0] != one.Parts[0] || two.Parts[1].Number != 2 {
		t.Fatalf("%+v: %v", two, err)
	}
	if uploads != 2 { // the table and the file that always changes
		t.Errorf("%d files sent for one new table", uploads)
	}
	got, err := w.fetch(restored(w.scope, 2), Latest)
	if want := []string{"n1 at 3", "n1 at 4"}; err != nil || !slices.Equal(got, want) {
		t.Fatalf("came back as %q: %v", got, err)
	}
}

// restored is a scope of the region's next incarnation.
func restored(s Scope, member uint16) Scope {
	s.Member = member
	return s
}

// TestShardZeroGoesLast: it must know whatever the other shards know.
func TestShardZeroGoesLast(t *testing.T) {
	w := newWorld(t, new(objects.Memory), 5, "n1", "n2", "n3")
	w.writeAll(1)
	if _, err := w.keeper("n2", Policy{}).Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.order[len(w.order)-1] != 0 || len(w.order) != 5 {
		t.Errorf("uploaded in the order %v", w.order)
	}
}

// TestAnUploaderStaysAndIsReplaced: whoever keeps, a shard stays with its uploader until that is away for long; another
// replica's tables are sent then, and the old one finds that it was deposed.
func TestAnUploaderStaysAndIsReplaced(t *testing.T) {
	w := newWorld(t, new(objects.Memory), 3, "n1", "n2", "n3")
	ctx := t.Context()
	k := w.keeper("n1", Policy{})
	for i := range 3 {
		w.writeAll(1)
		if i == 2 {
			k = w.keeper("n3", Policy{})
		}
		if _, err := k.Checkpoint(ctx); err != nil {
			t.Fatal(err)
		}
	}
	nodes := func() (list []string) {
		for _, u := range k.note.Shards {
			list = append(list, fmt.Sprint(u.Node, " ", u.Term))
		}
		return list
	}
	if want := []string{"n1 1", "n2 1", "n3 1"}; !slices.Equal(nodes(), want) {
		t.Fatalf("uploaders %v", nodes())
	}
	w.down["n2"] = true
	w.writeAll(1)
	cut, err := k.round(ctx, false)
	if cut == nil || !errors.Is(err, ErrNode) || cut.Parts[1].Index != 3 || cut.Parts[2].Index != 4 {
		t.Fatalf("with an uploader away: %+v, %v", cut, err)
	}
	w.pass(time.Minute)
	if cut, err = k.Checkpoint(ctx); err != nil || cut.Parts[1].Index != 4 || cut.Parts[1].Number != 4 {
		t.Fatalf("after a minute: %+v, %v", cut, err)
	}
	if want := []string{"n1 1", "n3 2", "n3 1"}; !slices.Equal(nodes(), want) {
		t.Fatalf("uploaders %v", nodes())
	}
	if _, err := w.uploads["n2"].Upload(ctx, Order{Shard: 1, Term: 1, Lineage: k.lineage}); !errors.Is(err, ErrDeposed) {
		t.Fatalf("the old uploader: %v", err)
	}
	w.check()
}

// TestADeposedUploaderReplacesNothing: one that has looked before it was deposed can't write what the other has written.
func TestADeposedUploaderReplacesNothing(t *testing.T) {
	w := newWorld(t, new(objects.Memory), 1, "n1", "n2")
	ctx := t.Context()
	w.writeAll(2)
	must(t, 0, onlyErr(w.uploads["n1"].Upload(ctx, Order{Term: 1, Lineage: "x"})))
	w.writeAll(1)
	w.store.Hook = func(method, key string) error {
		if method == "Create" && strings.Contains(key, "/manifests/") && strings.HasSuffix(key, "2.json") {
			w.store.Hook = nil
			must(t, 0, onlyErr(w.uploads["n2"].Upload(ctx, Order{Term: 2, Lineage: "x"})))
		}
		return nil
	}
	if _, err := w.uploads["n1"].Upload(ctx, Order{Term: 1, Lineage: "x"}); !errors.Is(err, ErrDeposed) {
		t.Fatal(err)
	}
	m, _, err := readManifest(ctx, w.store, place("east").manifest(0, 2))
	if err != nil || m.Node != "n2" {
		t.Fatalf("%+v, %v", m, err)
	}
	if _, err := w.uploads["n1"].Upload(ctx, Order{Term: 1, Lineage: "x"}); !errors.Is(err, ErrDeposed) {
		t.Fatal(err)
	}
}

func onlyErr[T any](_ T, err error) error { return err }

// TestAFailureAtAnyCall: whatever call fails, what stands in the bucket is whole, and the next round makes up for it.
func TestAFailureAtAnyCall(t *testing.T) {
	for at := 0; ; at++ {
		w := newWorld(t, new(objects.Memory), 2, "n1", "n2")
		k := w.keeper("n1", Policy{Keep: 1})
		w.writeAll(2)
		if _, err := k.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.pass(2 * testGrace)
		w.writeAll(1)
		w.replicas["n1"][0].compact()
		calls := 0
		w.store.Hook = func(string, string) error {
			if calls++; calls == at+1 {
				return errInjected
			}
			return nil
		}
		_, err := k.Checkpoint(t.Context())
		w.store.Hook = nil
		if calls <= at {
			if err != nil || at < 10 {
				t.Fatalf("%d calls: %v", calls, err)
			}
			return
		}
		w.check()
		cut, err := k.Checkpoint(t.Context())
		if err != nil || cut.Parts[0].Index != 3 || cut.Parts[1].Index != 3 {
			t.Fatalf("after call %d failed: %+v, %v", at+1, cut, err)
		}
		if cuts := w.check(); len(cuts) == 0 {
			t.Fatalf("after call %d failed: no cuts", at+1)
		}
	}
}

// TestNothingThatIsNeededIsRemoved: over random writes, compactions, faults, hand-overs and sweeps every cut that is
// listed is whole, and retention holds.
func TestNothingThatIsNeededIsRemoved(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, new(objects.Memory), 2, "n1", "n2")
		keepers := []*Keeper{w.keeper("n1", Policy{Keep: 2}), w.keeper("n2", Policy{Keep: 2})}
		names := 0
		rt.Repeat(map[string]func(*rapid.T){
			"write":   func(rt *rapid.T) { w.write(rapid.IntRange(0, 1).Draw(rt, "shard"), 1) },
			"compact": func(rt *rapid.T) { w.replicas[rapid.SampledFrom(w.scope.Nodes).Draw(rt, "node")][0].compact() },
			"pass":    func(rt *rapid.T) { w.pass(time.Duration(rapid.IntRange(1, 100).Draw(rt, "minutes")) * time.Minute) },
			"down": func(rt *rapid.T) {
				w.down["n2"] = rapid.Bool().Draw(rt, "down")
			},
			"fail": func(rt *rapid.T) {
				left := rapid.IntRange(0, 40).Draw(rt, "calls")
				w.store.Hook = func(string, string) error {
					if left--; left == 0 {
						w.store.Hook = nil
						return errInjected
					}
					return nil
				}
			},
			"checkpoint": func(rt *rapid.T) {
				_, _ = rapid.SampledFrom(keepers).Draw(rt, "keeper").Checkpoint(t.Context()) // it may fail
			},
			"savepoint": func(rt *rapid.T) {
				names++
				_, _ = keepers[0].Savepoint(t.Context(), fmt.Sprint("s", names))
			},
			"delete savepoint": func(rt *rapid.T) {
				_ = keepers[1].DeleteSavepoint(t.Context(), fmt.Sprint("s", rapid.IntRange(0, names+1).Draw(rt, "name")))
			},
			"": func(rt *rapid.T) { w.checkFor(rt) },
		})
		w.store.Hook = nil
		w.down["n2"] = false
		w.pass(10 * testGrace)
		w.writeAll(1)
		for range 3 { // a deposed keeper finds out first
			if _, err := keepers[0].Checkpoint(t.Context()); err != nil {
				continue
			}
		}
		points := slices.DeleteFunc(w.check(), func(c *Cut) bool { return c.Name != "" })
		if len(points) != 1 { // all others are too old or too many
			if len(points) > 2 {
				t.Fatalf("%d checkpoints are left", len(points))
			}
		}
	})
}

func TestRetention(t *testing.T) {
	now := time.Unix(1e9, 0)
	var cuts []kept
	for i := range 6 {
		cuts = append(cuts, kept{key: fmt.Sprint(i), modified: now.Add(time.Duration(i-5) * time.Hour)})
	}
	for name, x := range map[string]struct {
		p    Policy
		want string
	}{
		"by count":          {Policy{Keep: 2, MaxAge: 100 * time.Hour}, "0123"},
		"by age":            {Policy{Keep: 100, MaxAge: 90 * time.Minute}, "0123"},
		"the newest stays":  {Policy{Keep: 0, MaxAge: 0}, "01234"},
		"nothing to remove": {Policy{Keep: 6, MaxAge: 100 * time.Hour}, ""},
	} {
		got := ""
		for _, c := range x.p.expired(now, cuts) {
			got += c.key
		}
		if got != x.want {
			t.Errorf("%s: %s goes, want %s", name, got, x.want)
		}
	}
}

// TestSweep: what expired goes, with what it alone needed; a savepoint keeps what it needs until it is deleted.
func TestSweep(t *testing.T) {
	w := newWorld(t, new(objects.Memory), 1, "n1")
	k := w.keeper("n1", Policy{Keep: 1})
	ctx := t.Context()
	w.writeAll(1)
	saved, err := k.Savepoint(ctx, "before")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Savepoint(ctx, "before"); !errors.Is(err, objects.ErrExists) && err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.replicas["n1"][0].write(1)
		w.replicas["n1"][0].compact()
		w.pass(2 * testGrace)
		if _, err := k.Checkpoint(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if cuts := w.check(); len(cuts) != 2 || cuts[0].ID != 4 || cuts[1].Name != "before" || cuts[1].ID != saved.ID {
		t.Fatalf("%+v", cuts)
	}
	if n := len(w.keys("east/shards/0000/manifests/")); n != 2 {
		t.Errorf("%d manifests", n)
	}
	if n := len(w.keys("east/shards/0000/tables/")); n != 4 {
		t.Errorf("%d tables", n)
	}
	if err := k.DeleteSavepoint(ctx, "before"); err != nil {
		t.Fatal(err)
	}
	if err := k.DeleteSavepoint(ctx, "before"); !errors.Is(err, objects.ErrNotFound) {
		t.Fatal(err)
	}
	w.pass(time.Second)
	if _, err := k.Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	if m, n := len(w.keys("east/shards/0000/manifests/")), len(w.keys("east/shards/0000/tables/")); m != 1 || n != 2 {
		t.Errorf("%d manifests, %d tables", m, n)
	}
}

// TestABucketThatIsEmptied is filled again, at once where it was asked to look, in a while where nothing changes.
func TestABucketThatIsEmptied(t *testing.T) {
	w := newWorld(t, new(objects.Memory), 2, "n1")
	k := w.keeper("n1", Policy{})
	ctx := t.Context()
	w.writeAll(2)
	must(t, 0, onlyErr(k.round(ctx, false)))
	if err := w.store.Delete(ctx, w.keys("")); err != nil {
		t.Fatal(err)
	}
	_, _ = k.round(ctx, false) // finds out
	must(t, 0, onlyErr(k.round(ctx, false)))
	w.check()
	if err := w.store.Delete(ctx, w.keys("east/shards/0001/tables/")); err != nil {
		t.Fatal(err)
	}
	w.pass(11 * time.Minute)
	w.write(1, 1)
	must(t, 0, onlyErr(k.round(ctx, false)))
	id, err := newest(ctx, w.store, "east/checkpoints/")
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := readCut(ctx, w.store, place("east").checkpoint(id))
	if err == nil {
		err = whole(ctx, w.store, c)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestWhosePrefix: nobody writes below the prefix of another deployment, shape or history.
func TestWhosePrefix(t *testing.T) {
	store := new(objects.Memory)
	w := newWorld(t, store, 2, "n1", "n2")
	ctx := t.Context()
	w.writeAll(1)
	must(t, 0, onlyErr(w.keeper("n1", Policy{}).Checkpoint(ctx)))
	for name, x := range map[string]struct {
		change func(*Scope)
		says   string
	}{
		"another deployment": {func(s *Scope) { s.Deployment = "e" }, "deployment d"},
		"another shape":      {func(s *Scope) { s.Shards = 3 }, "of 2 shards, this deployment has 3"},
		"the same name":      {func(*Scope) {}, "another deployment of this name"},
		"wiped, as new":      {func(s *Scope) { s.Member = 2 }, "was wiped"},
	} {
		other := newWorld(t, store, 2, "n1")
		x.change(&other.scope)
		_, err := other.keeper("n1", Policy{}).Checkpoint(ctx)
		if !errors.Is(err, ErrForeign) || !strings.Contains(oneLineOf(err), x.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A node whose file was lost is vouched for.
	w.lineages["n2"] = &Lineage{path: t.TempDir() + "/x"}
	must(t, 0, onlyErr(w.keeper("n2", Policy{}).Checkpoint(ctx)))
	// One that is an incarnation behind is deposed.
	id := w.lineages["n1"].ID()
	next := newWorld(t, store, 2, "m1")
	next.scope.Member = 2
	if err := next.lineages["m1"].Adopt(id); err != nil {
		t.Fatal(err)
	}
	next.start("m1")
	next.writeAll(1)
	must(t, 0, onlyErr(next.keeper("m1", Policy{}).Checkpoint(ctx)))
	if _, err := w.keeper("n1", Policy{}).Checkpoint(ctx); !errors.Is(err, ErrDeposed) {
		t.Errorf("the region before: %v", err)
	}
}

// TestChoose: what a region may be restored from.
func TestChoose(t *testing.T) {
	w := newWorld(t, new(objects.Memory), 2, "n1")
	k := w.keeper("n1", Policy{Keep: 9})
	ctx := t.Context()
	if _, err := w.fetch(restored(w.scope, 2), Latest); !errors.Is(err, ErrNone) {
		t.Errorf("from nothing: %v", err)
	}
	for i := range 3 {
		w.writeAll(1)
		w.pass(time.Minute)
		if i == 1 {
			must(t, 0, onlyErr(k.Savepoint(ctx, "two")))
		} else {
			must(t, 0, onlyErr(k.Checkpoint(ctx)))
		}
	}
	for name, x := range map[string]struct {
		which  string
		change func(*Scope)
		want   error
		says   string
	}{
		"its own number":     {Latest, func(s *Scope) { s.Member = 1 }, ErrMember, "above that"},
		"of another count":   {Latest, func(s *Scope) { s.Shards = 4 }, ErrForeign, "of 2 shards, this deployment has 4"},
		"another deployment": {Latest, func(s *Scope) { s.Deployment = "e" }, ErrForeign, "deployment d"},
		"another region":     {Latest, func(s *Scope) { s.Region = "west" }, ErrNone, "west"},
		"other regions":      {Latest, func(s *Scope) { s.Regions = []string{"east"} }, ErrNotFit, "east"},
		"no such id":         {"77", func(*Scope) {}, ErrNone, "77"},
		"no such name":       {"three", func(*Scope) {}, ErrNone, "three"},
		"no name":            {"a/b", func(*Scope) {}, ErrNone, "a/b"},
	} {
		s := restored(w.scope, 2)
		x.change(&s)
		if _, err := w.fetch(s, x.which); !errors.Is(err, x.want) || !strings.Contains(oneLineOf(err), x.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i, which := range []string{"1", "two", Latest} {
		got, err := w.fetch(restored(w.scope, uint16(i+2)), which)
		if want := fmt.Sprint("n1 at ", i+1); err != nil || got[0] != want || got[1] != want {
			t.Errorf("%s came back as %q: %v", which, got, err)
		}
	}
	// A node that comes later begins with what the first one began with, whatever is the latest by now.
	w.writeAll(1)
	must(t, 0, onlyErr(k.Checkpoint(ctx)))
	if got, err := w.fetch(restored(w.scope, 4), Latest); err != nil || got[0] != "n1 at 3" {
		t.Errorf("the second node began with %q: %v", got, err)
	}
	if _, err := w.fetch(restored(w.scope, 4), "1"); !errors.Is(err, ErrMember) {
		t.Errorf("a node that was told otherwise: %v", err)
	}
}

// TestATornCheckpoint is found out, and the one before it is offered.
func TestATornCheckpoint(t *testing.T) {
	ctx := context.Background()
	for name, x := range map[string]struct {
		prefix string
		tear   func(w *world, key string)
	}{
		"a table is missing":  {"east/shards/0001/tables/", func(w *world, key string) { _ = w.store.Delete(ctx, []string{key}) }},
		"a table is short":    {"east/shards/0001/tables/", func(w *world, key string) { w.overwrite(key, "short") }},
		"a manifest is gone":  {"east/shards/0000/manifests/", func(w *world, key string) { _ = w.store.Delete(ctx, []string{key}) }},
		"a manifest is other": {"east/shards/0000/manifests/", func(w *world, key string) { w.overwrite(key, "{}") }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, new(objects.Memory), 2, "n1")
			k := w.keeper("n1", Policy{Keep: 9})
			w.writeAll(1)
			must(t, 0, onlyErr(k.Checkpoint(ctx)))
			old := w.keys(x.prefix)
			for shard := range 2 {
				w.write(shard, 1)
				w.replicas["n1"][shard].compact()
			}
			must(t, 0, onlyErr(k.Checkpoint(ctx)))
			for _, key := range w.keys(x.prefix) {
				if !slices.Contains(old, key) {
					x.tear(w, key)
				}
			}
			_, err := w.fetch(restored(w.scope, 2), Latest)
			if !errors.Is(err, ErrTorn) || !strings.Contains(oneLineOf(err), "before it that looks whole is 1") {
				t.Fatal(err)
			}
			if got, err := w.fetch(restored(w.scope, 2), "1"); err != nil || got[0] != "n1 at 1" {
				t.Fatal(got, err)
			}
		})
	}
	t.Run("a table's bytes are others", func(t *testing.T) {
		w := newWorld(t, new(objects.Memory), 1, "n1")
		w.writeAll(1)
		must(t, 0, onlyErr(w.keeper("n1", Policy{}).Checkpoint(ctx)))
		key := w.keys("east/shards/0000/tables/")[0]
		body, _, err := w.store.Get(ctx, key, 1000)
		if err != nil {
			t.Fatal(err)
		}
		body[0] ^= 1
		w.overwrite(key, string(body))
		if _, err := w.fetch(restored(w.scope, 2), Latest); !errors.Is(err, ErrTorn) {
			t.Fatal(err)
		}
	})
}

func (w *world) overwrite(key, content string) {
	if err := w.store.Upload(context.Background(), key, strings.NewReader(content), int64(len(content))); err != nil {
		w.t.Fatal(err)
	}
}

func TestNamesOfSavepoints(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "before-v2.1_x": true, "": false, "1": false, "latest": false, "a/b": false, "a b": false, "..": false,
		strings.Repeat("x", 63): true, strings.Repeat("x", 64): false, "ä": false,
	} {
		if ValidName(name) != want {
			t.Errorf("%q: %t", name, !want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	w := newWorld(f, new(objects.Memory), 1, "n1")
	w.writeAll(1)
	if _, err := w.keeper("n1", Policy{}).Checkpoint(f.Context()); err != nil {
		f.Fatal(err)
	}
	for _, key := range w.keys("") {
		body, _, err := w.store.Get(f.Context(), key, 1<<20)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Add([]byte(`{"version":99}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := decodeManifest(b); err == nil {
			if _, err := decodeManifest(encode(m)); err != nil {
				t.Fatalf("written again: %v", err)
			}
		}
		if c, err := decodeCut(b); err == nil {
			if _, err := decodeCut(encode(c)); err != nil {
				t.Fatalf("written again: %v", err)
			}
		}
	})
}

// TestADownloadThatBreaksOff is tried again.
func TestADownloadThatBreaksOff(t *testing.T) {
	w := newWorld(t, new(objects.Memory), 1, "n1")
	w.writeAll(2)
	must(t, 0, onlyErr(w.keeper("n1", Policy{}).Checkpoint(t.Context())))
	var broken atomic.Bool
	w.store.Hook = func(method, _ string) error {
		if method == "Download" && broken.CompareAndSwap(false, true) {
			return errInjected
		}
		return nil
	}
	if got, err := w.fetch(restored(w.scope, 2), Latest); err != nil || got[0] != "n1 at 2" || !broken.Load() {
		t.Fatal(got, err)
	}
}
