package decode

import (
	"testing"
	"time"

	"github.com/watershed-db/watershed/crdt"
)

func mustTime(t testing.TB, f TimeFormat, err error) *TimeFormat {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return &f
}

func unit(t testing.TB, u string) *TimeFormat { f, err := UnitTime(u); return mustTime(t, f, err) }

func layout(t testing.TB, l, zone string) *TimeFormat {
	f, err := LayoutTime(l, zone)
	return mustTime(t, f, err)
}

func TestTimes(t *testing.T) {
	rfc := &TimeFormat{}
	const day = "2006-01-02 15:04:05"
	tests := []struct {
		name   string
		format *TimeFormat
		value  crdt.Value
		want   string // RFC 3339 with milliseconds; empty: refused
	}{
		{"ms", unit(t, "ms"), crdt.Int(1442018952942), "2015-09-12T00:49:12.942Z"},
		{"ms float", unit(t, "ms"), crdt.Float(1442018952942.9), "2015-09-12T00:49:12.942Z"},
		{"ms before 1970", unit(t, "ms"), crdt.Float(-0.5), "1969-12-31T23:59:59.999Z"},
		{"s", unit(t, "s"), crdt.Int(-1), "1969-12-31T23:59:59.000Z"},
		{"s float", unit(t, "s"), crdt.Float(1442018952.942), "2015-09-12T00:49:12.942Z"},
		{"us", unit(t, "us"), crdt.Int(1442018952942999), "2015-09-12T00:49:12.942Z"},
		{"us before 1970", unit(t, "us"), crdt.Int(-1), "1969-12-31T23:59:59.999Z"},
		{"ns", unit(t, "ns"), crdt.Int(1442018952942999999), "2015-09-12T00:49:12.942Z"},
		{"us float", unit(t, "us"), crdt.Float(1442018952942999.8), "2015-09-12T00:49:12.942Z"},
		{"ns float beyond 64 bits", unit(t, "ns"), crdt.Float(1e19), "2286-11-20T17:46:40.000Z"},
		{"ns float of no year", unit(t, "ns"), crdt.Float(1e22), ""},
		{"ns float", unit(t, "ns"), crdt.Float(-1), "1969-12-31T23:59:59.999Z"},
		{"s of no year", unit(t, "s"), crdt.Int(253402300800), ""},
		{"s that overflow", unit(t, "s"), crdt.Int(1 << 62), ""},
		{"ms of year 0", unit(t, "ms"), crdt.Int(minEventTime - 1), ""},
		{"ms of year 1", unit(t, "ms"), crdt.Int(minEventTime), "0001-01-01T00:00:00.000Z"},
		{"huge float", unit(t, "ms"), crdt.Float(1e300), ""},
		{"big", unit(t, "ms"), crdt.Big("99999999999999999999"), ""},
		{"unit of a text", unit(t, "ms"), crdt.Text("1442018952942"), ""},
		{"unit of a raw", unit(t, "ms"), crdt.Raw("1442018952942"), "2015-09-12T00:49:12.942Z"},
		{"unit of a raw float", unit(t, "s"), crdt.Raw("1442018952.5"), "2015-09-12T00:49:12.500Z"},
		{"unit of a raw text", unit(t, "s"), crdt.Raw("now"), ""},
		{"unit of null", unit(t, "s"), crdt.Null(), ""},
		{"rfc", rfc, crdt.Text("2015-09-12T00:49:12.942Z"), "2015-09-12T00:49:12.942Z"},
		{"rfc nanoseconds", rfc, crdt.Text("2015-09-12T00:49:12.942999999Z"), "2015-09-12T00:49:12.942Z"},
		{"rfc cut before 1970", rfc, crdt.Text("1969-12-31T23:59:59.9999Z"), "1969-12-31T23:59:59.999Z"},
		{"rfc offset", rfc, crdt.Raw("2015-09-12T02:49:12.9+02:00"), "2015-09-12T00:49:12.900Z"},
		{"rfc west", rfc, crdt.Text("2015-09-11T20:19:12-04:30"), "2015-09-12T00:49:12.000Z"},
		{"rfc leap day", rfc, crdt.Text("2000-02-29T00:00:00Z"), "2000-02-29T00:00:00.000Z"},
		{"rfc no leap day", rfc, crdt.Text("1900-02-29T00:00:00Z"), ""},
		{"rfc leap second", rfc, crdt.Text("2016-12-31T23:59:60Z"), ""},
		{"rfc without zone", rfc, crdt.Text("2015-09-12T00:49:12"), ""},
		{"rfc year 0", rfc, crdt.Text("0000-12-31T23:59:59Z"), ""},
		{"rfc year 1", rfc, crdt.Text("0001-01-01T00:00:00Z"), "0001-01-01T00:00:00.000Z"},
		{"rfc beyond 9999 in UTC", rfc, crdt.Text("9999-12-31T23:59:59-01:00"), ""},
		{"rfc end", rfc, crdt.Text("9999-12-31T23:59:59.9999Z"), "9999-12-31T23:59:59.999Z"},
		{"rfc of a number", rfc, crdt.Int(1), ""},
		{"layout", layout(t, day, ""), crdt.Text("2015-09-12 00:49:12"), "2015-09-12T00:49:12.000Z"},
		{"layout with fraction", layout(t, day, "UTC"), crdt.Text("2015-09-12 00:49:12.942"), "2015-09-12T00:49:12.942Z"},
		{"layout short", layout(t, "2006/1/2 15:04:05", "UTC"), crdt.Raw("2014/4/1 0:11:00"), "2014-04-01T00:11:00.000Z"},
		{"layout american", layout(t, "1/2/2006 15:04:05", "UTC"), crdt.Text("4/30/2014 23:22:00"), "2014-04-30T23:22:00.000Z"},
		{"layout in a zone", layout(t, day, "America/New_York"), crdt.Text("2014-07-01 00:00:00"), "2014-07-01T04:00:00.000Z"},
		{"layout names months", layout(t, "02 Jan 2006", "UTC"), crdt.Text("12 Sep 2015"), "2015-09-12T00:00:00.000Z"},
		{"layout trailing", layout(t, day, "UTC"), crdt.Text("2015-09-12 00:49:12 x"), ""},
		{"layout bad day", layout(t, day, "UTC"), crdt.Text("2015-09-31 00:49:12"), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ms, err := tt.format.Parse(tt.value)
			got := ""
			if err == nil {
				got = time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
			}
			if got != tt.want {
				t.Errorf("got %q (%v), want %q", got, err, tt.want)
			}
		})
	}
}

func TestTimeFormatsRefused(t *testing.T) {
	if _, err := UnitTime("min"); err == nil {
		t.Error("unit min accepted")
	}
	for _, l := range [][2]string{{"15:04:05", "UTC"}, {"", "UTC"}, {"2006", "Mars/Base"}, {"2006", "Local"}} {
		if _, err := LayoutTime(l[0], l[1]); err == nil {
			t.Errorf("layout %q in %q accepted", l[0], l[1])
		}
	}
}

// FuzzTime holds the fast paths to the standard library.
func FuzzTime(f *testing.F) {
	for _, s := range []string{"2015-09-12T00:49:12.942Z", "2014/4/1 0:11:00", "4/30/2014 23:22:00", "2015-09-12 00:49:12",
		"2015-09-12T00:49:12+23:59", "0001-02-29T00:00:00Z", "2014-03-09 02:30:00.5"} {
		f.Add(s)
	}
	layouts := []string{"2006-01-02 15:04:05", "2006/1/2 15:04:05", "1/2/2006 15:04:05", "2006-01-02", "20060102"}
	zones := []string{"UTC", "America/New_York"}
	var formats []*TimeFormat
	for _, l := range layouts {
		for _, z := range zones {
			formats = append(formats, layout(f, l, z))
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		check := func(fmt *TimeFormat, want time.Time, wantErr error) {
			ms, err := fmt.Parse(crdt.Text(s))
			w, werr := ofTime(want, wantErr)
			if ms != w || (err == nil) != (werr == nil) {
				t.Errorf("%q as %v: %d, %v; the library: %d, %v", s, fmt, ms, err, w, wantErr)
			}
		}
		want, err := time.Parse(time.RFC3339, s)
		check(&TimeFormat{}, want, err)
		for _, f := range formats {
			want, err := time.ParseInLocation(f.layout, s, f.zone)
			check(f, want, err)
		}
	})
}

func BenchmarkTime(b *testing.B) {
	b.Run("rfc3339", func(b *testing.B) {
		f, v := TimeFormat{}, crdt.Text("2015-09-12T00:49:12.942Z")
		for b.Loop() {
			if _, err := f.Parse(v); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("layout", func(b *testing.B) {
		f, v := layout(b, "2006/1/2 15:04:05", "UTC"), crdt.Text("2014/4/1 0:11:00")
		for b.Loop() {
			if _, err := f.Parse(v); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// Seconds written to the millisecond are that millisecond, though hardly any of them is a float.
func TestSecondsToTheMillisecond(t *testing.T) {
	f := unit(t, "s")
	for ms := int64(minEventTime + 1); ms < maxEventTime; ms += 7_654_321_987 {
		v, err := f.Parse(crdt.Float(float64(ms) / 1000))
		if err != nil || v != ms {
			t.Fatalf("%d ms came back as %d, %v", ms, v, err)
		}
	}
}
