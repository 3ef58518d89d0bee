package cases

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// epoch is where the generated hours begin, in milliseconds.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMilli()

// generator makes the partitions of one topic; the same at every call.
type generator func() []Input

func generated(topics ...generator) func() ([]Input, error) {
	return func() ([]Input, error) {
		var ins []Input
		for _, topic := range topics {
			ins = append(ins, topic()...)
		}
		return ins, nil
	}
}

// lines makes a topic of n records over its partitions; every partition has a random stream of its own.
func lines(topic, format, header string, seed uint64, partitions, n int,
	line func(r *rand.Rand, i int) string) generator {
	return func() []Input {
		var ins []Input
		for p := range partitions {
			r := rand.New(rand.NewPCG(seed, uint64(p)))
			in := Input{Topic: topic, Partition: p, Format: format}
			if header != "" {
				in.Header = []byte(header)
			}
			for i := range n / partitions {
				in.Lines = append(in.Lines, []byte(line(r, i)))
			}
			ins = append(ins, in)
		}
		return ins
	}
}

// dirt is what a generator mixes into a stream.
type dirt int

const (
	clean dirt = iota
	// poisoned: one record in eight is late, from the future, or no record at all.
	poisoned
)

// moment is the event time of record i of a partition: 300 ms a record, out of order by up to 8 s, a few by much more.
func moment(r *rand.Rand, i int) int64 {
	t := epoch + int64(i)*300 - r.Int64N(8000)
	if r.IntN(20) == 0 {
		t -= r.Int64N(90_000)
	}
	return t
}

// place is somewhere in a town with one hot block.
func place(r *rand.Rand) string {
	spread := 0.03
	if r.IntN(3) == 0 {
		spread = 0.001
	}
	return fmt.Sprintf(`"lat":%.5f,"lon":%.5f`, 40.75+spread*(r.Float64()-0.5), -73.98+spread*(r.Float64()-0.5))
}

// fare is an integer, a float, or now and then nothing that is worth riding for.
func fare(r *rand.Rand) string {
	switch r.IntN(12) {
	case 0:
		return "0"
	case 1:
		return fmt.Sprintf("-%d.5", r.IntN(9))
	case 2, 3, 4:
		return fmt.Sprint(3 + r.IntN(60))
	case 5:
		return fmt.Sprintf("%d.25e-1", 10+r.IntN(90))
	}
	return fmt.Sprintf("%.2f", 3+60*r.Float64())
}

func rideRequests(seed uint64, partitions, n int, d dirt) generator {
	return lines("ride-requests", "json", "", seed, partitions, n, func(r *rand.Rand, i int) string {
		if d == poisoned && r.IntN(8) == 0 {
			return poison(r, moment(r, i))
		}
		return fmt.Sprintf(`{"ts":%d,"rider":"r%d",%s,"fare":%s}`, moment(r, i), r.IntN(40), place(r), fare(r))
	})
}

func driverPings(seed uint64, partitions, n int, _ dirt) generator {
	return lines("driver-pings", "json", "", seed, partitions, n, func(r *rand.Rand, i int) string {
		return fmt.Sprintf(`{"driver_id":%d,%s,"ts":%d,"speed":%d}`, r.IntN(25), place(r), moment(r, i), r.IntN(80))
	})
}

// poison is a ride request that something is wrong with. t is a time that would do.
func poison(r *rand.Rand, t int64) string {
	where := place(r)
	bad := []string{
		fmt.Sprintf(`{"ts":%d,"rider":"r1",%s,"fare":5}`, t-10*60_000, where),                      // late
		fmt.Sprintf(`{"ts":%d,"rider":"r1",%s,"fare":5}`, t-10*60_000, where),                      // as common as two
		fmt.Sprintf(`{"ts":%d,"rider":"r1",%s,"fare":5}`, t-(40+r.Int64N(50))*1000, where),         // late for some windows
		fmt.Sprintf(`{"ts":%d,"rider":"r1",%s,"fare":5}`, t-(40+r.Int64N(50))*1000, where),         // likewise
		fmt.Sprintf(`{"ts":%d,"rider":"r2",%s,"fare":5}`, t+48*3_600_000, where),                   // from the future
		fmt.Sprintf(`{"ts":%d,"rider":"r2",%s,"fare":5}`, int64(253402300799999), where),           // from the year 9999
		fmt.Sprintf(`{"ts":%d,"rider":"r2",%s,"fare":5}`, int64(253402300800000), where),           // from after it
		fmt.Sprintf(`{"rider":"r3",%s,"fare":5}`, where),                                           // no time
		fmt.Sprintf(`{"ts":null,"rider":"r3",%s,"fare":5}`, where),                                 // null time
		fmt.Sprintf(`{"ts":%d,%s`, t, where),                                                       // cut off
		fmt.Sprintf(`{"ts":%d,"rider":"r4",%s,"fare":5} x`, t, where),                              // something after it
		fmt.Sprintf(`{"ts":%d,"rider":"r4",%s,"fare":NaN}`, t, where),                              // NaN
		fmt.Sprintf(`{"ts":%d,"rider":"r4",%s,"fare":05}`, t, where),                               // no JSON number
		fmt.Sprintf("{\"ts\":%d,\"rider\":\"r\xff\",%s,\"fare\":5}", t, where),                     // invalid UTF-8
		fmt.Sprintf(`{"ts":%d,"rider":"\ud83d","fare":5,%s}`, t, where),                            // half a character
		fmt.Sprintf(`{"ts":%d,"rider":"r5",%s,"fare":5,"ts":%d}`, t, where, t),                     // a name twice
		fmt.Sprintf(`{"ts":%d,"rider":"r5",%s,"fare":5,"a":{"b":1,"\u0062":2}}`, t, where),         // likewise, inside
		fmt.Sprintf(`{"ts":%d,"rider":"r6",%s,"fare":"5"}`, t, where),                              // a text where a number is
		fmt.Sprintf(`{"ts":%d,"rider":"r6",%s,"fare":9223372036854775808}`, t, where),              // beyond 64 bits
		fmt.Sprintf(`{"ts":%d,"rider":"r6",%s,"fare":5,"tip":9223372036854775808}`, t, where),      // the same, not used
		fmt.Sprintf(`{"ts":%d,"rider":"r6",%s,"fare":9007199254740993}`, t, where),                 // beyond 2^53: exact
		fmt.Sprintf(`{"ts":%d,"rider":["r7"],"lat":"x","lon":0,"fare":5}`, t),                      // no place, no rider
		fmt.Sprintf(`{"ts":%d,"lon":1.5,"fare":5}`, t),                                             // no rider, no latitude
		fmt.Sprintf(`{"ts":%d,"rider":null,"lat":91,"lon":0,"fare":5}`, t),                         // not on Earth
		fmt.Sprintf(`{"ts":%d,"rider":"r8",%s,"fare":null}`, t, where),                             // null
		fmt.Sprintf("\t{ \"fare\" : 5 , %s , \"rider\" : \"r\\u0038\" , \"ts\" : %d } ", where, t), // good, if odd
		`[]`, `null`, `"ride"`, `7`, `{}`, `{{`, `fare,5`,
	}
	return bad[r.IntN(len(bad))]
}

// sessionEdges has keys whose records lie around a gap of ten seconds, in several orders.
func sessionEdges() []Input {
	in := Input{Topic: "steps", Format: "json"}
	n := 0
	for who, steps := range [][]int64{
		{0, 10_000, 20_000},
		{0, 9_999, 19_998},
		{0, 10_001, 20_002},
		{0, 9_999, 19_999},
		{20_000, 10_000, 0},
		{19_000, 0, 9_500},
		{0, 0, 0, 10_000},
		{5, 10_004, 10_005},
		{0, 30_000, 15_000, 5_001, 24_999},
		{-3_600_000},
	} {
		for _, step := range steps {
			line := fmt.Sprintf(`{"at":%d,"who":%d,"n":%d}`, epoch*1000+step*1000+999, who, n)
			in.Lines = append(in.Lines, []byte(line))
			n++
		}
	}
	return []Input{in}
}

// mixedValues has keys and values of every type a record can hold.
func mixedValues(seed uint64, partitions, n int) generator {
	keys := []string{`null`, `true`, `false`, `1`, `1.0`, `10e-1`, `1.5`, `-7`, `"1"`, `"true"`, `""`, `"a"`, `"A"`,
		`"<&>"`, `"Ж\u00e9"`, `9007199254740993`, `9007199254740992`, `9007199254740992.0`, `1e300`, `-1e300`,
		`9223372036854775807`, `-9223372036854775808`, `9.5e18`, `0.1`}
	texts := []string{`"b"`, `"B"`, `""`, `"zż"`, `"tab\tquote\"back\\slash\/"`, `"\u0000\u001f\u007f"`,
		`"line\u2028para\u2029"`, `"\ud83d\ude80"`, `"10"`, `"<b>&amp;"`}
	numbers := []string{`0`, `1`, `1.0`, `2.5`, `-3`, `1e3`, `1000`, `123456789012345678`, `9007199254740993`, `1e-7`,
		`3.0e21`, `-0.1`, `0.2`, `0.30000000000000004`, `4e15`}
	times := []string{"2026-03-01T12:%02d:%02dZ", "2026-03-01T12:%02d:%02d.25Z", "2026-03-01T14:%02d:%02d.1239+02:00",
		"1969-12-31T23:%02d:%02d.9999Z", "1950-01-01T00:%02d:%02d-05:00"}
	return lines("mixed", "json", "", seed, partitions, n, func(r *rand.Rand, _ int) string {
		pick := func(of ...[]string) string {
			list := of[r.IntN(len(of))]
			return list[r.IntN(len(list))]
		}
		at := fmt.Sprintf(times[r.IntN(len(times))], r.IntN(60), r.IntN(60))
		members := []string{`"time":"` + at + `"`}
		add := func(name string, odds int, value string) {
			if r.IntN(odds) > 0 {
				members = append(members, `"`+name+`":`+value)
			}
		}
		members = append(members, `"k":`+pick(keys))
		add("x", 9, pick(texts, numbers, []string{"null", "true", "false"}))
		add("m", 6, pick(texts, numbers, numbers, []string{"null"}))
		add("v", 7, pick(numbers, numbers, numbers, []string{"null"}))
		members = append(members, fmt.Sprintf(`"user":{"id":%d,"tags":["a",{"b":null}]}`, r.IntN(30)))
		r.Shuffle(len(members), func(a, b int) { members[a], members[b] = members[b], members[a] })
		return "{" + strings.Join(members, ",") + "}"
	})
}

// fareLines is a CSV topic. Its columns are declared, so that it can be read from Kafka, too.
func fareLines(seed uint64, partitions, n int) generator {
	payers := []string{"card", "cash", "", `"card, late"`, `"say ""no"""`, "Ünal", "null"}
	return lines("fares", "csv", "Pick Up,payer,cents,tip,shared,note", seed, partitions, n,
		func(r *rand.Rand, i int) string {
			at := time.UnixMilli(epoch + int64(i)*2000 - r.Int64N(5000)).UTC().Format("2006/1/2 15:04:05.000")
			cents, tip, shared := fmt.Sprint(r.IntN(9000)), fmt.Sprintf("%.2f", 9*r.Float64()), "true"
			switch r.IntN(12) {
			case 0:
				cents = ""
			case 1:
				tip = ""
			case 2:
				shared = "false"
			case 3:
				shared = ""
			case 4:
				cents = "many"
			case 5:
				tip = "2"
			case 6:
				return at + ",card,5" // too short
			case 7:
				at = "yesterday"
			}
			return strings.Join([]string{at, payers[r.IntN(len(payers))], cents, tip, shared, quoted(i)}, ",")
		})
}

// quoted is a note that needs its quotes.
func quoted(i int) string {
	note, err := json.Marshal(fmt.Sprintf("no. %d, paid", i))
	if err != nil {
		panic("cases: a text marshals: " + err.Error())
	}
	return string(note)
}
