package strict

import "testing"

func TestDurations(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "0s": 0, "5s": 5000, "1h30m": 5_400_000, "7d": 604_800_000, "1d12h": 129_600_000,
		"1.5s": 1500, "36500d": 3_153_600_000_000, "1000us": 1} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("%s: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "5", "d", "-1s", "-1d", "1.5d", "1d-5s", "5x", "1us", "36501d", "99999999999d", "1d1d", "1h1d"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("%s: %d", s, got)
		}
	}
	for ms, want := range map[int64]string{0: "0s", 1500: "1.5s", 60_000: "1m", 3_600_000: "1h", 86_400_000: "1d", 5_400_000: "1h30m",
		600_000: "10m"} {
		if got := FormatDuration(ms); got != want {
			t.Errorf("%d: %s", ms, got)
		}
	}
}
