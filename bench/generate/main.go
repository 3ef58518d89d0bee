// Command generate writes ride events as lines of JSON to standard output, always the same ones: 12 fields and about 195
// bytes each, a tenth of a millisecond apart and out of order by up to 120 ms, over 10,000 cities.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"strconv"
)

const (
	epoch  = 1_442_018_952_942 // ms
	cities = 10_000
)

func main() {
	n := flag.Int("n", 5_000_000, "events")
	flag.Parse()
	w := bufio.NewWriterSize(os.Stdout, 1<<20)
	if err := generate(w, *n); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func generate(w *bufio.Writer, n int) error {
	var line []byte
	x := uint64(88172645463325252)
	for i := range n {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		line = event(line[:0], i, x)
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	return w.Flush()
}

// event appends event i, whose fields follow from the random number x.
func event(b []byte, i int, x uint64) []byte {
	number := func(name string, v uint64, digits int) {
		b = append(b, name...)
		for k := uint64(10); digits > 1; digits-- {
			if v < k {
				b = append(b, '0')
			}
			k *= 10
		}
		b = strconv.AppendUint(b, v, 10)
	}
	number(`{"ride_id":"r-`, uint64(i), 7)
	number(`","rider_id":"u-`, x%50_000, 1)
	number(`","driver_id":"d-`, x%9_000, 4)
	number(`","ts":`, uint64(epoch+i/10)-x%13*10, 1)
	number(`,"lat":40.7`, x%9_999, 4)
	number(`,"lon":-73.9`, x%9_973, 4)
	number(`,"city":"c-`, x%cities, 1)
	number(`","fare":`, x%60, 1)
	number(`.`, x%100, 1)
	number(`,"currency":"USD","pool":false,"seats":`, x%4, 1)
	return append(b, `,"note":null}`+"\n"...)
}
