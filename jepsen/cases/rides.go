package cases

import (
	"time"

	"github.com/watershed-db/watershed/jepsen/oracle"
)

// rides lists the cases over input that the package generates.
func rides() []Case {
	at := time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC)
	hash := map[string]oracle.Expr{"geohash(lat, lon, 6)": cell("lat", "lon", 6)}
	return []Case{
		{
			Name:       "rides-surge",
			Shows:      "two topics of several partitions on one key, derive and having, records out of order",
			RecordTime: at,
			exprs: map[string]oracle.Expr{
				"geohash(lat, lon, 6)": hash["geohash(lat, lon, 6)"],
				"fare > 0":             test(func(x []float64) bool { return x[0] > 0 }, "fare"),
				"requests / max(drivers, 1)": compute(func(x []float64) float64 { return x[0] / max(x[1], 1) },
					"requests", "drivers"),
				"fares / requests": compute(func(x []float64) float64 { return x[0] / x[1] }, "fares", "requests"),
				"requests > 0":     test(func(x []float64) bool { return x[0] > 0 }, "requests"),
			},
			inputs: generated(
				rideRequests(1, 3, 4000, clean),
				driverPings(2, 2, 3000, clean)),
		},
		{
			Name:       "rides-global",
			Shows:      "two topics in one window for ever, rows that only one of them fills",
			RecordTime: at,
			exprs:      hash,
			inputs:     generated(rideRequests(3, 2, 1500, clean), driverPings(4, 1, 300, clean)),
		},
		{
			Name:       "rides-poisoned",
			Shows:      "late, future and invalid records in hopping windows",
			RecordTime: at,
			exprs: map[string]oracle.Expr{
				"geohash(lat, lon, 6)": hash["geohash(lat, lon, 6)"],
				"fare > 0":             test(func(x []float64) bool { return x[0] > 0 }, "fare"),
			},
			inputs: generated(rideRequests(5, 3, 3000, poisoned)),
		},
		{
			Name:       "rides-poisoned-sessions",
			Shows:      "late, future and invalid records in sessions",
			RecordTime: at,
			inputs:     generated(rideRequests(6, 2, 4000, poisoned)),
		},
		{
			Name:   "rides-sessions-edges",
			Shows:  "sessions whose records lie a gap, a millisecond less and a millisecond more apart",
			inputs: generated(sessionEdges),
		},
		{
			Name:   "mixed-values",
			Shows:  "keys and values of every type, equal integers and floats, integers beyond 2^53, odd texts",
			inputs: generated(mixedValues(7, 2, 1200)),
		},
		{
			Name:   "mixed-tumbling",
			Shows:  "the same in windows, with times before 1970, in text and with milliseconds",
			inputs: generated(mixedValues(8, 1, 600)),
		},
		{
			Name:       "fares-csv",
			Shows:      "CSV with declared columns, quotes, empty and unreadable cells; where over a nullable boolean",
			RecordTime: at,
			dressed:    true,
			inputs:     generated(fareLines(9, 2, 800)),
		},
	}
}
