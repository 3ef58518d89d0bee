package decode

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/watershed-db/watershed/crdt"
)

var wantedJSON = []string{"a", "user", "user.id", "user.home.city", "x y", "é"}

func newJSON(t testing.TB, wanted ...string) *JSON {
	t.Helper()
	var paths [][]string
	for _, w := range wanted {
		paths = append(paths, strings.Split(w, "."))
	}
	d, err := NewJSON(paths)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestJSONFields(t *testing.T) {
	long := strings.Repeat("x", 300)
	tests := []struct {
		name, in string
		want     string // field=state:value, only those that are there
	}{
		{"empty", `{}`, ""},
		{"spaces", " {\t\"a\" :\r\n1 , \"b\":[ ] } ", "a=int 1"},
		{"nested", `{"user":{"id":7,"home":{"city":"Rom"}},"a":null}`,
			"a=null user=unusable user.id=int 7 user.home.city=text Rom"},
		{"prefix is no object", `{"user":"u"}`, "user=text u"},
		{"array", `{"user":[{"id":1}],"a":[1,[2,{"a":3}]]}`, "a=unusable user=unusable"},
		{"integers", `{"a":-9223372036854775808,"user":9223372036854775807}`,
			"a=int -9223372036854775808 user=int 9223372036854775807"},
		{"beyond 64 bits", `{"a":9223372036854775808,"user":-9223372036854775809}`,
			"a=big 9223372036854775808 user=big -9223372036854775809"},
		{"minus zero", `{"a":-0,"user":-0.0}`, "a=int 0 user=float 0"},
		{"floats", `{"a":1.5,"user":1e2,"x y":0.1234567890123456789}`, "a=float 1.5 user=float 100 x y=float 0.12345678901234568"},
		{"out of range", `{"a":1e999,"user":` + strings.Repeat("9", 400) + `.5,"b":-1e999}`, "a=unusable user=unusable"},
		{"literals", `{"a":true,"user":false,"x y":null}`, "a=bool true user=bool false x y=null"},
		{"escapes", `{"a":"\u00e9\ud83d\ude00\n\"\\\/","\u00e9":"q"}`, "a=text é😀\n\"\\/ é=text q"},
		{"long text", `{"a":"` + long + `"}`, "a=text " + long},
		{"same names apart", `{"a":1,"b":{"a":2,"c":{"a":3}},"c":{"a":4}}`, "a=int 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newJSON(t, wantedJSON...)
			row := NewRow(len(wantedJSON))
			if err := d.Decode([]byte(tt.in), row); err != nil {
				t.Fatal(err)
			}
			if got := show(wantedJSON, row); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestJSONMalformed(t *testing.T) {
	many := func(last string) string {
		var s strings.Builder
		for i := range 100 {
			fmt.Fprintf(&s, `"n%d":%d,`, i, i)
		}
		return "{" + s.String() + last + "}"
	}
	tests := []struct{ name, in string }{
		{"nothing", ""},
		{"no object", "[1]"},
		{"text", `"a"`},
		{"unfinished", `{"a":1`},
		{"trailing", `{"a":1} x`},
		{"two objects", `{}{}`},
		{"trailing comma", `{"a":1,}`},
		{"no comma", `{"a":1 "b":2}`},
		{"no colon", `{"a" 1}`},
		{"unquoted name", `{a:1}`},
		{"NaN", `{"a":NaN}`},
		{"leading zero", `{"a":01}`},
		{"plus", `{"a":+1}`},
		{"bare dot", `{"a":1.}`},
		{"bare exponent", `{"a":1e}`},
		{"duplicate", `{"a":1,"a":1}`},
		{"duplicate not wanted", `{"b":1,"c":2,"b":3}`},
		{"duplicate inside", `{"c":[{"b":1,"b":2}]}`},
		{"duplicate by escape", `{"b":1,"\u0062":2}`},
		{"duplicate of many", many(`"n3":1`)},
		{"duplicate of many by escape", many(`"\u006e3":1`)},
		{"UTF-8 in value", "{\"b\":\"\xff\"}"},
		{"UTF-8 in name", "{\"\xc3\":1}"},
		{"UTF-8 cut", "{\"b\":\"aaaaaaaaaaaaaaaaa\xc3\"}"},
		{"lone surrogate", `{"b":"\ud800"}`},
		{"half pair", `{"b":"\ud800\u0041"}`},
		{"bad escape", `{"b":"\x"}`},
		{"control character", "{\"b\":\"a\nb\"}"},
		{"too deep", `{"b":` + strings.Repeat("[", 1001) + strings.Repeat("]", 1001) + "}"},
		{"too long", `{"b":"` + strings.Repeat("x", MaxRecord) + `"}`},
	}
	d := newJSON(t, wantedJSON...)
	row := NewRow(len(wantedJSON))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := d.Decode([]byte(tt.in), row)
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("error %v, want ErrMalformed", err)
			}
			if err != nil && len(err.Error()) > 100 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
		})
	}
	if err := d.Decode([]byte(many(`"n100":1`)), row); err != nil {
		t.Errorf("a hundred names: %v", err)
	}
}

// What a decoder has seen before does not show.
func TestJSONShapes(t *testing.T) {
	d := newJSON(t, wantedJSON...)
	row := NewRow(len(wantedJSON))
	for i, tt := range []struct{ in, want string }{
		{`{"a":1,"b":2,"user":3}`, "a=int 1 user=int 3"},
		{`{"a":4,"b":5,"user":6}`, "a=int 4 user=int 6"},
		{`{"a":7,"b":8}`, "a=int 7"},
		{`{"a":1,"b":2,"user":3,"x y":4}`, "a=int 1 user=int 3 x y=int 4"},
		{`{"a":1,"user":3,"b":2}`, "a=int 1 user=int 3"},
		{`{"a":1,"b":2,"a":3}`, ""},
		{`{"a":1,"b":2,"user":3,"b":2}`, ""},
		{`{"a":1,"b":2,"user":{"a":3,"id":4,"b":1}}`, "a=int 1 user=unusable user.id=int 4"},
		{`{"a":1,"b":2,"user":{"a":3,"a":4}}`, ""},
		{`{"a" :1,"b":2}`, "a=int 1"},
		{`{"a":9}`, "a=int 9"},
		{`{}`, ""},
	} {
		err := d.Decode([]byte(tt.in), row)
		if got := show(wantedJSON, row); err == nil && got != tt.want || (err != nil) != (tt.want == "" && tt.in != "{}") {
			t.Errorf("record %d: %s, %v; want %s", i, got, err, tt.want)
		}
	}
}

func TestJSONWanted(t *testing.T) {
	for _, wanted := range [][][]string{{{}}, {{"a"}, {"a"}}, {{"a", "b"}, {"a", "b"}}} {
		if _, err := NewJSON(wanted); err == nil {
			t.Errorf("%q accepted", wanted)
		}
	}
}

func TestJSONDoesNotAllocate(t *testing.T) {
	d, row, in := benchRecord(t)
	if n := testing.AllocsPerRun(100, func() {
		if err := d.Decode(in, row); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a record", n)
	}
}

// FuzzJSON holds the scanner to a strict, slow reader of the same language.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		`{"a":1,"user":{"id":"x","home":{"city":null}}}`, `{"a":-0.5e-3,"b":[1,2,{"c":"\ud83d\ude00"}]}`,
		"{\"a\":\"\xff\"}", `{"a":1,"\u0061":2}`, `{"user":{"id":12345678901234567890}} `, `{"x y":true,"é":"ü"}`, `[]`,
		`{"a":123456789012345678.5}`, `{"aaaaaaaaa":1,"aaaaaaaab":2,"baaaaaaaa":3}`,
	} {
		f.Add([]byte(s))
	}
	row, again := NewRow(len(wantedJSON)), NewRow(len(wantedJSON))
	f.Fuzz(func(t *testing.T, in []byte) {
		want, wantErr := slowJSON(in)
		d := newJSON(t, wantedJSON...)
		err := d.Decode(in, row)
		if e := d.Decode(in, again); (e == nil) != (err == nil) || e == nil && !reflect.DeepEqual(row, again) {
			t.Fatalf("%q: %v, %v; with its shape known: %v, %v", in, row, err, again, e)
		}
		if errors.Is(wantErr, errSkip) {
			t.Skip()
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v, but the slow reader: %v", in, err, wantErr)
		}
		if err != nil {
			return
		}
		for i, path := range wantedJSON {
			w, there := want[path]
			if got := (field{row.Values[i], row.States[i]}); !there && got.state != Absent || there && got != w {
				t.Errorf("%q: %s is %v, want %v", in, path, got, w)
			}
		}
	})
}

type field struct {
	value crdt.Value
	state State
}

var errSkip = errors.New("deeper than the scanner goes")

// slowJSON returns every member by its path.
func slowJSON(in []byte) (map[string]field, error) {
	d := jsontext.NewDecoder(bytes.NewReader(in))
	if d.PeekKind() != '{' {
		return nil, errors.New("no object")
	}
	fields := map[string]field{}
	if err := slowValue(d, "", fields, true); err != nil {
		return nil, err
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return nil, fmt.Errorf("trailing text: %w", err)
	}
	return fields, nil
}

func slowValue(d *jsontext.Decoder, path string, fields map[string]field, members bool) error {
	if d.StackDepth() > maxDepth-2 {
		return errSkip
	}
	tok, err := d.ReadToken()
	if err != nil {
		return err
	}
	f := field{state: Present}
	switch tok.Kind() {
	case 'n':
	case 't', 'f':
		f.value = crdt.Bool(tok.Bool())
	case '"':
		f.value = crdt.Text(tok.String())
	case '0':
		if f.value, err = slowNumber(tok.String()); err != nil {
			f = field{unusable, Unusable}
		}
	case '{', '[':
		f = field{unusable, Unusable}
		for end := tok.Kind() + 2; d.PeekKind() != end; {
			sub := ""
			if tok.Kind() == '{' {
				name, err := d.ReadToken()
				if err != nil {
					return err
				}
				if sub = name.String(); path != "" {
					sub = path + "." + sub
				}
				if strings.Contains(name.String(), ".") || name.String() == "" {
					sub = "\x00"
				}
			}
			if err := slowValue(d, sub, fields, members && tok.Kind() == '{' && sub != "\x00"); err != nil {
				return err
			}
		}
		if _, err := d.ReadToken(); err != nil {
			return err
		}
	}
	if members {
		fields[path] = f
	}
	return nil
}

func slowNumber(s string) (crdt.Value, error) {
	if !strings.ContainsAny(s, ".eE") {
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			return crdt.Int(i), nil
		}
		return crdt.Big(s), nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(f, 0) {
		return crdt.Null(), errors.New("out of range")
	}
	return crdt.Float(f), nil
}

func show(fields []string, row *Row) string {
	var out []string
	for i, f := range fields {
		v, s := row.Values[i], ""
		switch {
		case row.States[i] == Absent:
			continue
		case row.States[i] == Unusable:
			s = "unusable"
		case v.IsNull():
			s = "null"
		case v.Kind() == crdt.KindBool:
			s = fmt.Sprint("bool ", v.Bool())
		case v.Kind() == crdt.KindInt:
			s = fmt.Sprint("int ", v.Int())
		case v.Kind() == crdt.KindFloat:
			s = fmt.Sprint("float ", v.Float())
		case v.Kind() == crdt.KindText:
			s = "text " + v.Text()
		case v.Kind() == crdt.KindRaw:
			s = "raw " + v.Text()
		case v.Kind() == crdt.KindBig:
			s = "big " + v.Text()
		}
		out = append(out, f+"="+s)
	}
	return strings.Join(out, " ")
}

func benchRecord(t testing.TB) (*JSON, *Row, []byte) {
	t.Helper()
	wanted := []string{"ts", "city", "fare"}
	in := []byte(`{"ride_id":"r-000123","rider_id":"u-4711","driver_id":"d-0815","ts":1442018952942,"lat":40.74844,` +
		`"lon":-73.98566,"city":"NYC","fare":23.5,"currency":"USD","pool":false,"seats":2,"note":null}`)
	return newJSON(t, wanted...), NewRow(len(wanted)), in
}

func BenchmarkJSON(b *testing.B) {
	d, row, in := benchRecord(b)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(in, row); err != nil {
			b.Fatal(err)
		}
	}
}
