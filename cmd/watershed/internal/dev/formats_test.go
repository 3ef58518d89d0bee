package dev

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestNewerIsRefused: a file of a later version is refused, and the message says both.
func TestNewerIsRefused(t *testing.T) {
	dir := t.TempDir()
	text := fmt.Sprintf(`{"version": %d, "regions": {}}`, endpointsVersion+1)
	if err := os.WriteFile(endpointsFile(dir), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	_, endpoints := ReadEndpoints(dir)
	for name, err := range map[string]error{
		"dev endpoints": endpoints, "dev layout": (&layout{Version: layoutVersion + 1}).fits("layout.json", Options{}),
	} {
		version := Formats()[name]
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("version %d, this watershed reads up to %d", version+1, version)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
