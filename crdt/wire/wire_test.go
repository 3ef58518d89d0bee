package wire

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"
)

// TestReaderTakesWhatWasAppended: everything comes back as it went in, and nothing is left.
func TestReaderTakesWhatWasAppended(t *testing.T) {
	numbers := []uint64{0, 1, 127, 128, 1 << 20, math.MaxInt64, math.MaxUint64}
	b := []byte{3}
	for _, u := range numbers {
		b = binary.AppendUvarint(b, u)
		b = binary.AppendVarint(b, int64(u))
	}
	b = append(binary.AppendUvarint(b, 2), "hi"...)
	b = append(binary.BigEndian.AppendUint64(b, 7), "rest"...)
	r := Reader{B: b}
	r.Version(3, errors.New("other"))
	for _, u := range numbers {
		if x, y := r.Uvarint(), r.Varint(); x != u || y != int64(u) {
			t.Errorf("%d comes back as %d and %d", u, x, y)
		}
	}
	if s, n, rest := r.Text(2), r.Fixed64(), string(r.Take(4)); s != "hi" || n != 7 || rest != "rest" {
		t.Errorf("%q %d %q", s, n, rest)
	}
	if err := r.Done(); err != nil {
		t.Error(err)
	}
}

// TestReaderRefuses: what is cut short, above its bound, not in its shortest form or left over is an error that stays.
func TestReaderRefuses(t *testing.T) {
	other, base := errors.New("other"), errors.New("base")
	for name, c := range map[string]struct {
		b    string
		base error
		take func(r *Reader)
		want error
	}{
		"nothing there":                {"", nil, func(r *Reader) { r.Byte() }, ErrEncoding},
		"no number":                    {"", nil, func(r *Reader) { r.Uvarint() }, ErrEncoding},
		"a number that does not end":   {"\x80", nil, func(r *Reader) { r.Uvarint() }, ErrEncoding},
		"a number of 65 bits":          {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", nil, func(r *Reader) { r.Uvarint() }, ErrEncoding},
		"a longer form":                {"\x81\x00", nil, func(r *Reader) { r.Uvarint() }, ErrEncoding},
		"above its bound":              {"\x05", nil, func(r *Reader) { r.UvarintTo(4) }, ErrEncoding},
		"more things than bytes":       {"\x02a", nil, func(r *Reader) { r.Size() }, ErrEncoding},
		"more things than allowed":     {"\x02ab", nil, func(r *Reader) { r.Count(1) }, ErrEncoding},
		"a text longer than allowed":   {"\x02ab", nil, func(r *Reader) { r.Text(1) }, ErrEncoding},
		"eight bytes of seven":         {"1234567", nil, func(r *Reader) { r.Fixed64() }, ErrEncoding},
		"a negative number of bytes":   {"a", nil, func(r *Reader) { r.Take(-1) }, ErrEncoding},
		"left over":                    {"a", nil, func(*Reader) {}, ErrEncoding},
		"an error of its own":          {"", base, func(r *Reader) { r.Byte() }, base},
		"another version":              {"\x02", nil, func(r *Reader) { r.Version(1, other) }, other},
		"a failure that others follow": {"", nil, func(r *Reader) { r.FailWith(other); r.Byte() }, other},
	} {
		r := Reader{B: []byte(c.b), Base: c.base}
		c.take(&r)
		if err := r.Done(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if r.B != nil || r.Byte() != 0 || r.Uvarint() != 0 || r.Text(9) != "" || !r.Failed() {
			t.Errorf("%s: goes on after its failure", name)
		}
	}
}
