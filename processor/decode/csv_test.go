package decode

import (
	"encoding/csv"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/watershed-db/watershed/crdt"
)

func TestCSVFields(t *testing.T) {
	columns := []Column{{"Date/Time", TextColumn}, {"n", IntColumn}, {"f", FloatColumn}, {"b", BoolColumn}, {"raw", Untyped}}
	wanted := []string{"raw", "Date/Time", "n", "f", "b"}
	tests := []struct{ name, in, want string }{
		{"all", `x,1,2.5,true,7`, "raw=raw 7 Date/Time=text x n=int 1 f=float 2.5 b=bool true"},
		{"empty is null", `,,,,`, "raw=null Date/Time=null n=null f=null b=null"},
		{"empty quotes too", `"","","","",""`, "raw=null Date/Time=null n=null f=null b=null"},
		{"quotes", `"a,b","+7","-1","false","say ""hi"""`,
			`raw=raw say "hi" Date/Time=text a,b n=int 7 f=float -1 b=bool false`},
		{"line break", "\"a\r\nb\",1,1,true,x", "raw=raw x Date/Time=text a\r\nb n=int 1 f=float 1 b=bool true"},
		{"big", `x,99999999999999999999,1e3,true,-`, "raw=raw - Date/Time=text x n=big 99999999999999999999 f=float 1000 b=bool true"},
		{"line end", "x,1,1,true,x\r\n", "raw=raw x Date/Time=text x n=int 1 f=float 1 b=bool true"},
		{"big, less zeros", `x,-0099999999999999999999,1,true,x`,
			"raw=raw x Date/Time=text x n=big -99999999999999999999 f=float 1 b=bool true"},
		{"not of the type", `x,1.0,abc,yes,x`, "raw=raw x Date/Time=text x n=unusable f=unusable b=unusable"},
		{"NaN", `x, 1,NaN,1,x`, "raw=raw x Date/Time=text x n=unusable f=unusable b=unusable"},
		{"infinity", `x,+,-Inf,TRUE,x`, "raw=raw x Date/Time=text x n=unusable f=unusable b=unusable"},
		{"hexadecimal", `x,0x1,0x1p4,t,x`, "raw=raw x Date/Time=text x n=unusable f=unusable b=unusable"},
		{"out of range", `x,1_0,1e999,f,x`, "raw=raw x Date/Time=text x n=unusable f=unusable b=unusable"},
		{"spaces stay", ` x ,1,1,true,  `, "raw=raw    Date/Time=text  x  n=int 1 f=float 1 b=bool true"},
	}
	d, err := NewCSV(columns, wanted)
	if err != nil {
		t.Fatal(err)
	}
	row := NewRow(len(wanted))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := d.Decode([]byte(tt.in), row); err != nil {
				t.Fatal(err)
			}
			if got := show(wanted, row); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestCSVMalformed(t *testing.T) {
	tests := []struct{ name, in string }{
		{"too few", "1,2"},
		{"too many", "1,2,true,x,"},
		{"nothing", ""},
		{"bare quote", `1,2,true,a"b`},
		{"line break", "1,2,true,a\nb"},
		{"two line ends", "1,2,true,a\n\n"},
		{"open quote", `1,2,true,"ab`},
		{"text after quote", `1,2,true,"a"b`},
		{"UTF-8", "1,2,true,\xff"},
	}
	d, err := NewCSV([]Column{{"i", IntColumn}, {"f", FloatColumn}, {"b", BoolColumn}, {"t", TextColumn}}, []string{"i", "f"})
	if err != nil {
		t.Fatal(err)
	}
	row := NewRow(2)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := d.Decode([]byte(tt.in), row); !errors.Is(err, ErrMalformed) {
				t.Errorf("error %v, want ErrMalformed", err)
			}
		})
	}
}

func TestCSVColumns(t *testing.T) {
	two := []Column{{"a", IntColumn}, {"b", TextColumn}}
	if _, err := NewCSV(two, []string{"c"}); !errors.Is(err, ErrColumns) {
		t.Errorf("wanted column that is not there: %v", err)
	}
	if _, err := NewCSV([]Column{{Name: "a"}, {Name: "a"}}, nil); !errors.Is(err, ErrColumns) {
		t.Errorf("two columns of one name: %v", err)
	}
	if got, err := Header([]byte(`"Date/Time",Lat`), nil); err != nil || len(got) != 2 || got[0].Name != "Date/Time" {
		t.Errorf("header: %v, %v", got, err)
	}
	if got, err := Header([]byte(`a,b`), two); err != nil || got[0].Type != IntColumn {
		t.Errorf("header as declared: %v, %v", got, err)
	}
	for _, line := range []string{"a", "a,c", "b,a", "a,b,c"} {
		if _, err := Header([]byte(line), two); !errors.Is(err, ErrColumns) {
			t.Errorf("header %q: %v", line, err)
		}
	}
	for _, line := range []string{`a,"b`, "a,\xff"} {
		if _, err := Header([]byte(line), nil); !errors.Is(err, ErrMalformed) {
			t.Errorf("header %q: %v", line, err)
		}
	}
	if _, err := ParseColumnType("date"); err == nil {
		t.Error("type date accepted")
	}
}

// FuzzCSV holds records to the standard library's reader, where the two speak one language: it ends lines at any line
// feed and drops carriage returns before one.
func FuzzCSV(f *testing.F) {
	for _, s := range []string{`a,b,c`, `"a,b",,"""x"""`, `a"b,c,d`, `"a"b,c,d`, `,,`, `"a`, "\"a\nb\",c,d", ",,\n0"} {
		f.Add([]byte(s))
	}
	wanted := []string{"0", "1", "2"}
	d, err := NewCSV([]Column{{"0", TextColumn}, {"1", TextColumn}, {"2", TextColumn}}, wanted)
	if err != nil {
		f.Fatal(err)
	}
	row := NewRow(3)
	f.Fuzz(func(t *testing.T, in []byte) {
		if !utf8.Valid(in) || strings.ContainsRune(string(in), '\r') || strings.HasPrefix(string(in), "\n") {
			t.Skip()
		}
		r := csv.NewReader(strings.NewReader(string(in)))
		r.FieldsPerRecord = 3
		want, wantErr := r.Read()
		if r.InputOffset() != int64(len(in)) || strings.HasSuffix(string(in), "\n\n") {
			t.Skip() // more than one record
		}
		err := d.Decode(in, row)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v, but the library: %v", in, err, wantErr)
		}
		for i := range want {
			if err != nil {
				return
			}
			w := crdt.Text(want[i])
			if want[i] == "" {
				w = crdt.Null()
			}
			if row.Values[i] != w || row.States[i] != Present {
				t.Errorf("%q: field %d is %v, want %v", in, i, row.Values[i], w)
			}
		}
	})
}
