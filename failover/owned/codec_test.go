package owned

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/watershed-db/watershed/failover/ownership"
)

// some values of each encoding, with everything set.
var (
	someID  = ID{Session{1 << 40, 0xfeed}, 7}
	someOps = []Op{
		{Kind: Put, Time: 5, ID: someID, Table: TableID{1}, Key: []byte("k"), Value: []byte("v"), TTL: 3},
		{Kind: Put, ID: someID, Key: []byte("k"), Expect: Expect{Kind: EqualValue, Value: []byte("w")}},
		{Kind: Delete, Time: MaxMillis, ID: someID, Replays: ID{Session{1, 2}, 3}, Expect: Expect{Kind: AtVersion, Version: mark(2, 9)}},
		{Kind: Delete, ID: someID, Expect: Expect{Kind: Absent}},
		{Kind: Sweep, Time: 9, Closed: 4, Sessions: []Session{{1, 2}}, Expired: []RowID{{TableID{1}, []byte("k")}}, Dropped: []RowID{{}}},
	}
	someResults = []Result{
		{Verdict: Applied, At: mark(2, 3), Stands: true, Version: mark(2, 3)},
		{Verdict: CompareFailed, At: mark(2, 3), Stands: true, Version: mark(1, 2), Again: true},
		{Verdict: Forgotten, At: mark(2, 3)},
	}
	someRows  = []Row{{Version: mark(1, 2), Value: []byte{}}, {Version: mark(1, 2), Expires: 8, Value: []byte("v")}}
	someHead  = Head{Time: 1, Closed: 2, Rows: 3, Bytes: 4, Sessions: 5, sum: [2]uint64{6, 7}}
	someImage = image{applied: true, changes: []change{{"hx", nil}, {"t1", []byte("v")}}}
	someLocal = local{copy: 2, next: 3, last: 9, dropped: 4, bytes: 90, gone: 9, turns: 2, ids: 3, kept: 2, unsettled: 1,
		staged: staged{copy: 3, mark: mark(1, 2), digest: Digest{1}, chunks: 4, head: someHead, whole: true}}
	someConflict = conflict{mark: mark(1, 2), by: 9, flags: flagBefore | flagSettled, reason: "r", payload: []byte("p"), before: []byte("b")}
)

func TestEncodings(t *testing.T) {
	for _, op := range someOps {
		got, err := DecodeOp(op.Append(nil))
		if err != nil || !reflect.DeepEqual(got, op) {
			t.Errorf("operation %+v comes back as %+v, %v", op, got, err)
		}
	}
	for _, r := range someResults {
		if got, err := DecodeResult(r.Append(nil)); err != nil || got != r {
			t.Errorf("result %+v comes back as %+v, %v", r, got, err)
		}
	}
	for _, r := range someRows {
		if got, err := decodeRow(r.encode()); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("row %+v comes back as %+v, %v", r, got, err)
		}
	}
	if got, err := decodeHead(someHead.encode()); err != nil || got != someHead {
		t.Errorf("head comes back as %+v, %v", got, err)
	}
	if got, err := decodeImage(someImage.encode()); err != nil || !reflect.DeepEqual(got, someImage) {
		t.Errorf("image comes back as %+v, %v", got, err)
	}
	if got, err := decodeLocal(someLocal.encode()); err != nil || got != someLocal {
		t.Errorf("local head comes back as %+v, %v", got, err)
	}
	if got, err := decodeConflict(someConflict.encode()); err != nil || !reflect.DeepEqual(got, someConflict) {
		t.Errorf("ledger entry comes back as %+v, %v", got, err)
	}
}

// everyDecoder tries all decoders on bytes, and returns what they took encoded again.
func everyDecoder(b []byte) [][]byte {
	var out [][]byte
	if x, err := DecodeOp(b); err == nil {
		out = append(out, x.Append(nil))
	}
	if x, err := DecodeResult(b); err == nil {
		out = append(out, x.Append(nil))
	}
	if x, err := decodeRow(b); err == nil {
		out = append(out, x.encode())
	}
	if x, err := decodeHead(b); err == nil && len(b) > 0 {
		out = append(out, x.encode())
	}
	if x, err := decodeImage(b); err == nil && b != nil {
		out = append(out, x.encode())
	}
	if x, err := decodeLocal(b); err == nil && len(b) > 0 {
		out = append(out, x.encode())
	}
	if x, err := decodeLogged(b); err == nil {
		out = append(out, x.encode())
	}
	if x, err := decodeConflict(b); err == nil {
		out = append(out, x.encode())
	}
	if list, err := decodeChunk(b); err == nil {
		again := []byte{Version}
		for _, c := range list {
			again = appendPair(again, c.key, c.value)
		}
		out = append(out, again)
	}
	return out
}

func FuzzDecoders(f *testing.F) {
	for _, op := range someOps {
		f.Add(op.Append(nil))
	}
	for _, r := range someResults {
		f.Add(r.Append(nil))
	}
	for _, r := range someRows {
		f.Add(r.encode())
	}
	f.Add(Row{Version: mark(1, 2), deleted: true}.encode())
	f.Add(someHead.encode())
	f.Add(someImage.encode())
	f.Add(someLocal.encode())
	f.Add(someConflict.encode())
	f.Add(logged{3, true, 9, nil}.encode())
	f.Add(logged{3, false, 9, []byte("p")}.encode())
	chunk := appendPair([]byte{Version}, rowKey(TableID{1}, []byte("k")), someRows[0].encode())
	chunk = appendPair(chunk, outcomeKey(someID), someResults[0].Append(nil))
	chunk = appendPair(chunk, sessionKey(someID.Session), []byte{Version, 7})
	f.Add(appendPair(chunk, string(keyHead), someHead.encode()))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, again := range everyDecoder(b) {
			if !bytes.Equal(again, b) {
				t.Fatalf("%x is taken, and encoded as %x", b, again)
			}
		}
		l := Open(store{}) // whatever an owner has written, the log goes on
		l.Take(Entry{Mark: ownership.Mark{Epoch: 1, Position: 2}, Payload: b})
		if err := l.Close(&batch{}); err != nil {
			t.Fatal(err)
		}
	})
}
