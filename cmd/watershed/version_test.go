package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestEveryFormatIsDocumented holds the table of docs/upgrade.md to what this binary writes.
func TestEveryFormatIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/upgrade.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || !strings.Contains(cells[1], "`") {
			continue
		}
		for name := range strings.SplitSeq(cells[1], ",") {
			documented[strings.Trim(name, " `")] = strings.TrimSpace(cells[2])
		}
	}
	v := version()
	for name, number := range v.Formats {
		if documented[name] != fmt.Sprint(number) {
			t.Errorf("%s has version %d, the table says %q", name, number, documented[name])
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("%s is in the table, and is none of the binary's", name)
	}
}
