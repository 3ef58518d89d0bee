package cases

import (
	"fmt"
	"time"

	"github.com/watershed-db/watershed/jepsen/oracle"
)

// pickups lists the cases over ride-hailing pickups: CSV, every month of a base one partition.
func pickups() []Case {
	all := []Case{
		{
			Name:   "pickups-cells",
			Shows:  "twelve partitions whose months lie apart; geohash as key; exact float averages",
			Large:  true,
			exprs:  map[string]oracle.Expr{"geohash(Lat, Lon, 6)": cell("Lat", "Lon", 6)},
			inputs: pickupFiles(4, 5, 6, 7, 8, 9),
		},
		{
			Name:   "pickups-hopping",
			Shows:  "hopping windows over two partitions; min and max of floats",
			inputs: pickupFiles(4),
		},
		{
			Name:      "pickups-untyped",
			Shows:     "CSV columns without a type: text that sum and avg convert",
			FilesOnly: true,
			inputs:    pickupFiles(5),
		},
	}
	for i := range all {
		all[i].RecordTime = time.Date(2014, 10, 1, 0, 0, 0, 0, time.UTC)
	}
	return all
}

func pickupFiles(months ...int) func() ([]Input, error) {
	return func() ([]Input, error) {
		var ins []Input
		for _, month := range months {
			for _, base := range []string{"B02512", "B02598"} {
				lines, err := dataLines(fmt.Sprintf("uber-pickups-2014-%02d-%s.csv.gz", month, base))
				if err != nil {
					return nil, err
				}
				ins = append(ins, Input{Topic: "pickups", Partition: len(ins), Format: "csv",
					Header: lines[0], Lines: lines[1:]})
			}
		}
		return ins, nil
	}
}
