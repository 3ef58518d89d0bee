package region

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEveryMetricIsInTheRunbook holds the runbook's table to what nodes print: what the sources name, and what a node of two
// regions has.
func TestEveryMetricIsInTheRunbook(t *testing.T) {
	text, err := os.ReadFile("../docs/runbook.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			for _, found := range regexp.MustCompile("`(watershed_[a-z_]+)`").FindAllStringSubmatch(cells[1], -1) {
				documented[found[1]] = true
			}
		}
	}
	there := map[string]bool{}
	literal := regexp.MustCompile(`"(watershed_[a-z_]*[a-z])"`)
	for _, dir := range []string{".", "../processor", "../cmd"} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			for _, found := range literal.FindAllStringSubmatch(string(source), -1) {
				there[found[1]] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	c := newClusters(t, 1, 1, "a", "b")[0]
	applied := c.apply(0, toyJob)
	c.feed(applied.Job.Generation, 0).send(0, 500, "x")
	families, err := c.nodes[0].node.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "watershed_") {
			there[f.GetName()] = true
		}
	}
	for name := range there {
		if !documented[name] {
			t.Errorf("%s is not in the runbook", name)
		}
	}
	// What is there only at times is named in parts.
	for _, x := range []string{"region_unreachable", "horizon_seconds", "watermark_seconds", "peer_records_behind", "peer_silent_seconds",
		"peer_join_refusals_total", "peer_refused_total", "peer_gaps_total", "table_floor_seconds"} {
		there["watershed_"+x] = true
	}
	for name := range documented {
		if !there[name] {
			t.Errorf("%s is in the runbook and nowhere else", name)
		}
	}
}
