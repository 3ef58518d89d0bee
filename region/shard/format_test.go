package shard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/watershed-db/watershed/crdt"
)

// TestNewerIsRefused: whatever a newer build has written is refused, and the message says both versions.
func TestNewerIsRefused(t *testing.T) {
	says := func(version int) []string {
		return []string{fmt.Sprint(" ", version+1, ","), fmt.Sprint(" ", version)}
	}
	for name, test := range map[string]struct {
		err  error
		want []string
	}{
		"a command of this kind":              {second(Decode([]byte{byte(KindHorizon), Format + 1})), says(Format)},
		"a command of a kind that is unknown": {second(Decode([]byte{250, Format + 1})), says(Format)},
		"a raise":                             {(&Raise{Format + 1}).check(), says(Format)},
		"a shard":                             {second(readFormat(binary.AppendUvarint([]byte{metaVersion}, Format+1), true)), says(Format)},
		"a stored record":                     {readHeadOf([]byte{metaVersion + 1}), says(metaVersion)},
		"the format record":                   {second(readFormat([]byte{metaVersion + 1}, true)), says(metaVersion)},
	} {
		if !errors.Is(test.err, ErrNewer) {
			t.Errorf("%s: %v", name, test.err)
			continue
		}
		for _, part := range test.want {
			if !strings.Contains(test.err.Error(), part) {
				t.Errorf("%s: %q is not in %v", name, part, test.err)
			}
		}
	}
}

func second[T any](_ T, err error) error { return err }

func readHeadOf(b []byte) error {
	r := &reader{b: b}
	new(Generation).readHead(r)
	return r.done()
}

// TestRaise: a format comes into force by a command, once, stays in the store, and never goes back.
func TestRaise(t *testing.T) {
	cfg := &Config{Self: "a", Regions: []crdt.RegionID{"a"}, Shards: 1}
	st := newState()
	step := func(index uint64, c Command) (Writes, Result) {
		next, w, res, _ := apply(cfg, st, nil, index, Encode(c), c)
		st = next
		return w, res
	}
	if _, res := step(1, &Raise{1}); res.Outcome != Duplicate || st.Format != 1 {
		t.Errorf("raising to the first format: %v, in force %d", res.Outcome, st.Format)
	}
	w, res := step(2, &Raise{7})
	if res.Outcome != Applied || st.Format != 7 {
		t.Errorf("raising: %v, in force %d", res.Outcome, st.Format)
	}
	found := false
	for _, set := range w.Sets {
		if string(set.Key) == string(formatKey()) {
			found = true
			if _, err := readFormat(set.Value, true); !errors.Is(err, ErrNewer) {
				t.Errorf("what was stored for format 7 reads as %v", err)
			}
		}
	}
	if !found {
		t.Error("the format is not stored")
	}
	if _, res := step(3, &Raise{3}); res.Outcome != Duplicate || st.Format != 7 {
		t.Errorf("going back: %v, in force %d", res.Outcome, st.Format)
	}
	if err := cfg.Validate(st, &Raise{Format + 1}); !errors.Is(err, ErrInvalid) || !errors.Is(err, ErrNewer) {
		t.Errorf("a raise beyond this build is let in: %v", err)
	}
}

// TestRaiseBeyondThisBuildStops: a replica does not go on over a log that it can't read.
func TestRaiseBeyondThisBuildStops(t *testing.T) {
	var fatal error
	m := &Machine{o: Options{Fatal: func(err error) { fatal = err }}}
	m.state.Store(newState())
	if err, ok := m.Apply(1, Encode(&Raise{Format + 1})).(error); !ok || !errors.Is(err, ErrNewer) || !errors.Is(fatal, ErrNewer) {
		t.Fatalf("it goes on: %v, %v", err, fatal)
	}
	if err, ok := m.Apply(2, Encode(&Check{})).(error); !ok || !errors.Is(err, ErrNewer) {
		t.Fatalf("it goes on after that: %v", err)
	}
}
