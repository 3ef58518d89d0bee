package decode

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/watershed-db/watershed/crdt"
)

// Event times lie in the years 1 to 9999.
const (
	minEventTime = -62135596800000 // 0001-01-01T00:00:00Z
	maxEventTime = 253402300799999 // 9999-12-31T23:59:59.999Z
)

// ErrTime is returned for a value that is no event time under a format.
var ErrTime = errors.New("not a time of the declared format, in the years 1 to 9999")

// TimeFormat says how a field's value becomes an event time. The zero TimeFormat is RFC 3339. It is immutable and safe
// for concurrent use.
type TimeFormat struct {
	perMilli int64 // units a millisecond, for units finer than it
	millis   int64 // milliseconds a unit, for units no finer; 0 for texts
	layout   string
	zone     *time.Location
	steps    []step // what the layout is made of, where the fast path knows all of it
}

// UnitTime returns the format of numbers of a unit since 1970-01-01 UTC: s, ms, us or ns.
func UnitTime(unit string) (TimeFormat, error) {
	switch unit {
	case "s":
		return TimeFormat{millis: 1000, perMilli: 1}, nil
	case "ms":
		return TimeFormat{millis: 1, perMilli: 1}, nil
	case "us":
		return TimeFormat{millis: 1, perMilli: 1000}, nil
	case "ns":
		return TimeFormat{millis: 1, perMilli: 1_000_000}, nil
	}
	return TimeFormat{}, fmt.Errorf("time unit %q: want s, ms, us or ns", unit)
}

// LayoutTime returns the format of texts in a layout of Go's package time, read in a zone of the time zone database
// (UTC where it is empty) unless the text names its own offset.
func LayoutTime(layout, zone string) (TimeFormat, error) {
	if zone == "Local" {
		return TimeFormat{}, errors.New(`time zone "Local": a zone must mean the same on every machine`)
	}
	loc, err := time.LoadLocation(zone)
	if err != nil {
		return TimeFormat{}, fmt.Errorf("time zone %q: %w", zone, err)
	}
	sample := time.Date(2006, 1, 2, 15, 4, 5, 0, time.UTC)
	back, err := time.ParseInLocation(layout, sample.Format(layout), loc)
	if err != nil {
		return TimeFormat{}, fmt.Errorf("time layout %q cannot be read: %w", layout, err)
	}
	if back.Year() != 2006 {
		return TimeFormat{}, fmt.Errorf("time layout %q has no year", layout)
	}
	return TimeFormat{layout: layout, zone: loc, steps: compile(layout)}, nil
}

// Parse returns the event time that v stands for, in milliseconds; finer parts are cut off (towards the past). It fails
// with ErrTime.
func (f *TimeFormat) Parse(v crdt.Value) (int64, error) {
	if f.millis > 0 {
		return f.number(v)
	}
	if v.Kind() != crdt.KindText && v.Kind() != crdt.KindRaw {
		return 0, ErrTime
	}
	s := v.Text()
	if f.layout == "" {
		if ms, ok := rfc3339(s); ok {
			return inRange(ms)
		}
		t, err := time.Parse(time.RFC3339, s)
		return ofTime(t, err)
	}
	if ms, ok := f.fast(s); ok {
		return inRange(ms)
	}
	t, err := time.ParseInLocation(f.layout, s, f.zone)
	return ofTime(t, err)
}

func ofTime(t time.Time, err error) (int64, error) {
	if err != nil {
		return 0, ErrTime
	}
	return inRange(t.UnixMilli())
}

func inRange(ms int64) (int64, error) {
	if ms < minEventTime || ms > maxEventTime {
		return 0, ErrTime
	}
	return ms, nil
}

// number converts a number of units. A CSV field without a type is read as the number it spells.
func (f *TimeFormat) number(v crdt.Value) (int64, error) {
	if v.Kind() == crdt.KindRaw {
		text := []byte(v.Text())
		n, ok := parseInt(text)
		if !ok {
			if n, ok = parseFloat(text); !ok {
				return 0, ErrTime
			}
		}
		v = n
	}
	switch v.Kind() {
	case crdt.KindInt:
		i := v.Int()
		if f.millis > 1 && (i < minEventTime/f.millis || i > maxEventTime/f.millis) {
			return 0, ErrTime
		}
		return inRange(floorDiv(i*f.millis, f.perMilli))
	case crdt.KindFloat:
		return f.float(v.Float())
	}
	return 0, ErrTime
}

// float converts a number of units with a fraction.
func (f *TimeFormat) float(v float64) (int64, error) {
	n := math.Floor(v)
	if f.millis > 1 {
		n = millisOf(v)
	}
	if math.Abs(n) < 1<<63 {
		return inRange(floorDiv(int64(n), f.perMilli))
	}
	if n = math.Floor(n / float64(f.perMilli)); math.Abs(n) < 1<<63 {
		return inRange(int64(n))
	}
	return 0, ErrTime
}

// millisOf cuts seconds to milliseconds. Seconds written to the millisecond mean it, though the float that is nearest to
// them mostly lies beside it.
func millisOf(s float64) float64 {
	n := float64(s * 1000)
	if r := math.Round(n); float64(r/1000) == s {
		return r
	}
	n = math.Floor(n)
	if float64(n/1000) > s {
		n--
	}
	return n
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// rfc3339 reads the common spelling of RFC 3339 in UTC or with an offset. What it does not take may still be one.
func rfc3339(s string) (int64, bool) {
	if len(s) < len("2006-01-02T15:04:05Z") || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' {
		return 0, false
	}
	var c civil
	bad := false
	two := func(i int) int {
		a, b := s[i]-'0', s[i+1]-'0'
		bad = bad || a > 9 || b > 9
		return int(a)*10 + int(b)
	}
	c.year, c.month, c.day = two(0)*100+two(2), two(5), two(8)
	c.hour, c.minute, c.second = two(11), two(14), two(17)
	if bad || !c.valid() {
		return 0, false
	}
	i := 19
	if s[i] == '.' {
		i++
		start := i
		for scale := 100; i < len(s) && s[i]-'0' <= 9; i++ {
			c.milli += int(s[i]-'0') * scale
			scale /= 10
		}
		if i == start || i-start > 9 || i == len(s) {
			return 0, false
		}
	}
	ms := c.unixMilli()
	if s[i] == 'Z' && i+1 == len(s) {
		return ms, true
	}
	if i+6 != len(s) || s[i] != '+' && s[i] != '-' || s[i+3] != ':' {
		return 0, false
	}
	hours, minutes := two(i+1), two(i+4)
	if bad || hours > 23 || minutes > 59 {
		return 0, false
	}
	offset := int64(hours*60+minutes) * 60_000
	if s[i] == '-' {
		offset = -offset
	}
	return ms - offset, true
}

// civil is a date and time of day without a zone.
type civil struct{ year, month, day, hour, minute, second, milli int }

var monthDays = [...]int{0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}

func (c *civil) valid() bool {
	if c.month < 1 || c.month > 12 || c.day < 1 || c.hour > 23 || c.minute > 59 || c.second > 59 {
		return false
	}
	days := monthDays[c.month]
	if c.month == 2 && (c.year%4 == 0 && c.year%100 != 0 || c.year%400 == 0) {
		days++
	}
	return c.day <= days
}

// unixMilli returns c's time in UTC. c is valid; the days are counted from March in eras of 400 years.
func (c *civil) unixMilli() int64 {
	y, m := c.year, c.month
	if m <= 2 {
		y--
		m += 12
	}
	era := y / 400
	if y < 0 {
		era = -1
	}
	y -= era * 400
	day := (153*(m-3)+2)/5 + c.day - 1
	days := era*146097 + y*365 + y/4 - y/100 + day - 719468
	return int64(days)*86_400_000 + int64(c.hour*3_600_000+c.minute*60_000+c.second*1000+c.milli)
}

// step is a piece of a layout: a number of a civil time, or text that stands for itself.
type step struct {
	part  byte // Y, M, D, h, m or s; 0 for a literal byte
	least int  // digits
	most  int
	text  byte
}

// compile cuts a layout into steps, or returns nil if it has a part that the fast path does not know.
func compile(layout string) []step {
	known := []struct {
		text string
		step step
	}{
		{"2006", step{'Y', 4, 4, 0}}, {"01", step{'M', 2, 2, 0}}, {"02", step{'D', 2, 2, 0}}, {"15", step{'h', 1, 2, 0}},
		{"04", step{'m', 2, 2, 0}}, {"05", step{'s', 2, 2, 0}}, {"1", step{'M', 1, 2, 0}}, {"2", step{'D', 1, 2, 0}},
		{"4", step{'m', 1, 2, 0}}, {"5", step{'s', 1, 2, 0}},
	}
	var steps []step
next:
	for len(layout) > 0 {
		for _, k := range known {
			if len(layout) >= len(k.text) && layout[:len(k.text)] == k.text {
				steps = append(steps, k.step)
				layout = layout[len(k.text):]
				continue next
			}
		}
		switch c := layout[0]; c {
		case '-', '/', ':', ' ', 'T':
			steps = append(steps, step{text: c})
			layout = layout[1:]
		default:
			return nil
		}
	}
	return steps
}

// fast reads s by the compiled layout. What it does not take may still be of the layout.
func (f *TimeFormat) fast(s string) (int64, bool) {
	if f.steps == nil {
		return 0, false
	}
	c := civil{month: 1, day: 1}
	i := 0
	for _, st := range f.steps {
		if st.part == 0 {
			if i == len(s) || s[i] != st.text {
				return 0, false
			}
			i++
			continue
		}
		start, n := i, 0
		for i < len(s) && i-start < st.most && s[i]-'0' <= 9 {
			n = n*10 + int(s[i]-'0')
			i++
		}
		if i-start < st.least {
			return 0, false
		}
		switch st.part {
		case 'Y':
			c.year = n
		case 'M':
			c.month = n
		case 'D':
			c.day = n
		case 'h':
			c.hour = n
		case 'm':
			c.minute = n
		case 's':
			c.second = n
		}
	}
	if i != len(s) || !c.valid() {
		return 0, false
	}
	if f.zone == time.UTC {
		return c.unixMilli(), true
	}
	return time.Date(c.year, time.Month(c.month), c.day, c.hour, c.minute, c.second, 0, f.zone).UnixMilli(), true
}

// String returns the format as a job file spells it.
func (f *TimeFormat) String() string {
	switch {
	case f.millis == 1000:
		return "s"
	case f.millis == 1:
		return map[int64]string{1: "ms", 1000: "us", 1_000_000: "ns"}[f.perMilli]
	case f.layout == "":
		return "RFC 3339"
	}
	return strconv.Quote(f.layout) + " in " + f.zone.String()
}
