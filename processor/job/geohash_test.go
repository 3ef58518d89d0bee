package job

import (
	"math"
	"testing"
)

// slowGeohash is the definition: halve the ranges by turns.
func slowGeohash(lat, lon float64, length int) string {
	south, north, west, east := -90.0, 90.0, -180.0, 180.0
	var out []byte
	letter := 0
	for bit := range 5 * length {
		letter *= 2
		if bit%2 == 0 {
			if mid := (west + east) / 2; lon >= mid {
				letter, west = letter+1, mid
			} else {
				east = mid
			}
		} else {
			if mid := (south + north) / 2; lat >= mid {
				letter, south = letter+1, mid
			} else {
				north = mid
			}
		}
		if bit%5 == 4 {
			out = append(out, geohashAlphabet[letter])
			letter = 0
		}
	}
	return string(out)
}

func FuzzGeohash(f *testing.F) {
	for _, x := range []float64{0, 1e-300, -1e-300, 45, 90, 180, 57.64911, math.Nextafter(45, 0), math.Nextafter(90, 0),
		math.Nextafter(0, -1), math.Nextafter(180, 0), 91, 181, math.NaN(), math.Inf(1)} {
		f.Add(x, x/2, 12)
		f.Add(-x/2, -x, 5)
	}
	f.Fuzz(func(t *testing.T, lat, lon float64, length int) {
		length = (length%12+12)%12 + 1
		got, ok := appendGeohash(nil, lat, lon, length)
		if onEarth := math.Abs(lat) <= 90 && math.Abs(lon) <= 180; ok != onEarth {
			t.Fatalf("%v, %v: on Earth is %t", lat, lon, ok)
		}
		if want := slowGeohash(lat, lon, length); ok && string(got) != want {
			t.Errorf("%v, %v: %s, want %s", lat, lon, got, want)
		}
	})
}

// TestGeohashOnBoundaries tries places on, just below and just above boundaries of cells, where rounding shows.
func TestGeohashOnBoundaries(t *testing.T) {
	for i := int64(0); i < 20000; i++ {
		k := i * 53687 % (1 << 30)
		lat, lon := -90+180*float64(k)/(1<<30), -180+360*float64((1<<30)-k)/(1<<30)
		for _, y := range []float64{lat, math.Nextafter(lat, -90), math.Nextafter(lat, 90)} {
			for _, x := range []float64{lon, math.Nextafter(lon, -180), math.Nextafter(lon, 180)} {
				got, ok := appendGeohash(nil, y, x, 12)
				if want := slowGeohash(y, x, 12); !ok || string(got) != want {
					t.Fatalf("%v, %v: %s, want %s", y, x, got, want)
				}
			}
		}
	}
}
