package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	watershedv1 "github.com/watershed-db/watershed/proto/watershed/v1"
)

// Values of an owned table are written and read through any region, before, over and after a flip; a write that is tried
// again after it, in the region that owns now, counts once.
func TestOwnedTablesOverAFlip(t *testing.T) {
	d := startDev(t, filepath.Join(t.TempDir(), "deployment"), "--regions", east+","+west, "--nodes", "1", "--shards", "2")
	d.mustTable(west, "apply", writeTable(t, "drivers", "type: owned\ndurability: quorum\n"))
	before := d.write(west, &watershedv1.WriteRequest{
		Table: "drivers", Key: textKey("7"), Operation: &watershedv1.WriteRequest_Put{Put: []byte("free")},
	})
	d.awaitValue(east, "drivers", "7", "free")
	d.mustTable(east, "cas", "drivers", "7", "busy", "--value", "free")
	d.table(west, "cas", "drivers", "7", "busy", "--value", "free").refused(t, 1, "the value is not as expected", "its version is")
	for i := range 20 {
		d.mustTable([]string{east, west}[i%2], "put", "drivers", fmt.Sprint("k", i), "1")
	}

	must(t, append([]string{"owner", "flip", "--to", west, "--all"}, d.endpoint(east)...)...)
	if out := d.retry(west, before); !out.GetAgain() {
		t.Errorf("a write is taken again after the flip: %v", out)
	}
	for _, region := range []string{east, west} {
		d.awaitValue(region, "drivers", "7", "busy")
		if got := d.mustTable(region, "scan", "drivers", "--output", "jsonl"); strings.Count(got, "\n") != 21 {
			t.Errorf("%s scans:\n%s", region, got)
		}
	}
	out := d.mustTable(east, "get", "drivers", "7", "--output", "jsonl")
	if !strings.Contains(out, `"value":"busy","version":"`) || !strings.Contains(out, `"epoch":`) {
		t.Errorf("read as %s", out)
	}
	d.mustTable(east, "delete", "drivers", "7")
	d.awaitValue(west, "drivers", "7", "")
	d.mustTable(west, "cas", "drivers", "7", "new", "--absent")
	d.awaitValue(east, "drivers", "7", "new")
}
