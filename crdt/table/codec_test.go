package table

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/watershed-db/watershed/crdt"
	"pgregory.net/rapid"
)

// decoders of all that is stored or sent. Each returns what it has taken, encoded again.
var decoders = map[string]func([]byte) ([]byte, error){
	"operation": func(b []byte) ([]byte, error) {
		o, err := DecodeOp(b)
		return o.Append(nil), err
	},
	"sessions": func(b []byte) ([]byte, error) {
		s, err := DecodeSessions(b)
		if err != nil {
			return nil, err
		}
		return s.Append(nil), nil
	},
	"marks": func(b []byte) ([]byte, error) {
		m, err := DecodeMarks(b)
		return m.Append(nil), err
	},
}

func init() {
	for _, of := range allTypes {
		decoders[of.String()] = func(b []byte) ([]byte, error) {
			v, err := Decode(of, b)
			if err != nil {
				return nil, err
			}
			return v.Append(nil), nil
		}
	}
}

func TestNewerIsRefused(t *testing.T) {
	for name, decode := range decoders {
		_, err := decode([]byte{version + 1, 0, 0, 0})
		both := fmt.Sprintf("version %d, this build reads %d", version+1, version)
		if !errors.Is(err, crdt.ErrEncoding) || !strings.Contains(err.Error(), both) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpRoundTrip(t *testing.T) {
	forAllTypes(t, func(t *rapid.T, h history) {
		for _, o := range h.ops {
			b := o.Append(nil)
			got, err := DecodeOp(b)
			if err != nil || !bytes.Equal(got.Append(nil), b) {
				t.Fatalf("%+v decodes as %+v, %v", o, got, err)
			}
			if len(got.Data) == 0 {
				got.Data = o.Data // nil or empty
			}
			if len(got.Observed) == 0 {
				got.Observed = o.Observed
			}
			if !reflect.DeepEqual(got, *o) {
				t.Fatalf("%+v decodes as %+v", o, got)
			}
			for n := range b {
				if _, err := DecodeOp(b[:n]); !errors.Is(err, crdt.ErrEncoding) {
					t.Fatalf("cut short at %d: %v", n, err)
				}
			}
		}
	})
}

func genMarks() *rapid.Generator[Marks] {
	return rapid.Map(rapid.MapOfN(rapid.Uint16(), rapid.Uint64(), 0, 5), func(m map[uint16]uint64) Marks {
		marks := Marks{}
		for a, n := range m {
			marks[Actor(a)] = Mark{n, int64(n & maxMillis)}
		}
		return marks
	})
}

func TestMarksRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genMarks().Draw(t, "marks")
		if got, err := DecodeMarks(m.Append(nil)); err != nil || !reflect.DeepEqual(got, m) {
			t.Fatalf("%v decodes as %v, %v", m, got, err)
		}
	})
}

// TestMalformed: what is not the one form of its content is refused, whatever has made it.
func TestMalformed(t *testing.T) {
	nonce := "\x00\x00\x00\x00\x00\x00\x00\x01"
	id := "\x05" + nonce + "\x01"
	stamp := "\x80\x80\xa0\x03" + id
	for name, bad := range map[string]string{
		"counter left over":          "\x01\x01\x00\x00\x00\x00",
		"counter of another kind":    "\x01\x02\x00\x00\x00",
		"counter with empty session": "\x01\x01\x00\x00\x01\x05" + nonce + "\x00\x00",
		"counter sessions twice":     "\x01\x01\x00\x00\x02\x05" + nonce + "\x00\x01\x00\x02\x00" + nonce + "\x00\x01\x00\x02",
		"counter sequences wrap":     "\x01\x01\x00\x00\x01\x05" + nonce + "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x01\x00\x02",
		"counter floor too late":     "\x01\x01\xff\xff\xff\xff\xff\xff\x7f\x00\x00",
		"counter long varint":        "\x01\x01\x80\x00\x00\x00",
		"register write of kind 3":   "\x01\x02\x00\x03",
		"register without time":      "\x01\x02\x00\x01\x00" + id + "\x00",
		"register early stamp":       "\x01\x02\x00\x01\x01" + id + "\x00",
		"register removal below":     "\x01\x02\x7f\x02" + stamp,
		"register sequence 0":        "\x01\x02\x00\x01" + stamp[:len(stamp)-1] + "\x00\x00",
		"set insert not seen":        "\x01\x03\x00\x00\x01\x01e\x01" + id,
		"set element of nothing":     "\x01\x03\x00\x00\x01\x01e\x00",
		"set elements out of order":  "\x01\x03\x7f\x00\x02\x01e\x01" + id + "\x01e\x01" + id,
		"set inserts out of order":   "\x01\x03\x7f\x00\x01\x01e\x02" + id + id,
		"lww-set element of nothing": "\x01\x04\x00\x01\x01e\x00",
		"operation of kind 9":        "\x01\x05\x09" + id,
		"operation element too long": "\x01\x05\x04" + id + "\x00\x81\x80\x01" + strings.Repeat("e", MaxElement+1) + "\x00",
		"operation observed twice":   "\x01\x05\x05" + id + "\x00\x01e\x02" + id + id,
		"sessions prefix too short":  "\x01\x06\x00\x01\x05" + nonce + "\x02\x01\x00",
		"marks actors out of order":  "\x01\x07\x02\x01\x00\x00\x00\x00\x00",
		"marks actor too big":        "\x01\x07\x01\x80\x80\x04\x00\x00",
	} {
		kind, _, _ := strings.Cut(name, " ")
		if _, err := decoders[kind]([]byte(bad)); !errors.Is(err, crdt.ErrEncoding) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeValue(f *testing.F) {
	for _, of := range allTypes {
		for seed := range 3 {
			h := genHistory(of).Example(seed)
			x := h.genReplica().Example(seed)
			f.Add(uint8(of), x.value.Append(nil))
		}
	}
	f.Fuzz(func(t *testing.T, of uint8, b []byte) {
		kind := allTypes[int(of)%len(allTypes)]
		v, err := Decode(kind, b)
		if err != nil {
			return
		}
		if got := v.Append(nil); !bytes.Equal(got, b) {
			t.Fatalf("%x taken, %x written", b, got)
		}
		again, err := Decode(kind, b)
		if err != nil {
			t.Fatal(err)
		}
		if v.Join(again); !bytes.Equal(v.Append(nil), b) {
			t.Fatalf("%x joined with itself is %x", b, v.Append(nil))
		}
		s := new(Sessions)
		s.Raise(150)
		reads := read(v)
		v.Fold(s)
		if read(v) != reads {
			t.Fatalf("%x reads %s, folded %s", b, reads, read(v))
		}
		folded := v.Append(nil)
		if again, err := Decode(kind, folded); err != nil || !bytes.Equal(again.Append(nil), folded) {
			t.Fatalf("%x folds to %x: %v", b, folded, err)
		}
	})
}

func fuzzDecoder(f *testing.F, name string) {
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := decoders[name](b); err == nil && !bytes.Equal(got, b) {
			t.Fatalf("%x taken, %x written", b, got)
		}
	})
}

func FuzzDecodeOp(f *testing.F) {
	for _, of := range allTypes {
		for seed := range 3 {
			for _, o := range genHistory(of).Example(seed).ops {
				f.Add(o.Append(nil))
			}
		}
	}
	fuzzDecoder(f, "operation")
}

func FuzzDecodeSessions(f *testing.F) {
	for seed := range 6 {
		x := genHistory(TypeCounter).Example(seed).genReplica().Example(seed)
		f.Add(x.sessions.Append(nil))
	}
	fuzzDecoder(f, "sessions")
}

func FuzzDecodeMarks(f *testing.F) {
	for seed := range 6 {
		f.Add(genMarks().Example(seed).Append(nil))
	}
	fuzzDecoder(f, "marks")
}
