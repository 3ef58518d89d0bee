package job

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCases(t *testing.T) {
	files, _ := filepath.Glob("../../jepsen/cases/testdata/*.yaml")
	if len(files) < 10 {
		t.Fatalf("%d files", len(files))
	}
	for _, f := range files {
		src, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(f, src); err != nil {
			t.Errorf("%v", err)
		}
	}
}
