package region

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/watershed-db/watershed/region/config"
)

func testConfig(data string) config.Config {
	return config.Config{
		Deployment: "d", Region: "a", Node: "n1", Data: data, Shards: 2,
		Regions: []config.Region{{Name: "b", Member: 2, GRPC: []string{"x:1"}}, {Name: "a", Member: 1}},
	}
}

func TestFolderIsMarkedBeforeItIsUsed(t *testing.T) {
	c := testConfig(filepath.Join(t.TempDir(), "new", "folder"))
	lock, err := openFolder(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openFolder(c); !errors.Is(err, ErrLocked) {
		t.Fatalf("a second process: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	id, err := readIdentity(c.Data)
	if err != nil || !reflect.DeepEqual(*id, identityOf(c)) {
		t.Fatal(id, err)
	}
	c.Regions[0], c.Regions[1] = c.Regions[1], c.Regions[0]
	c.Regions[1].GRPC = []string{"elsewhere:1"}
	if lock, err = openFolder(c); err != nil {
		t.Fatalf("the same node with other addresses: %v", err)
	}
	lock.Close()
}

func TestFolderOfOthersIsRefused(t *testing.T) {
	for name, change := range map[string]func(*config.Config){
		"deployment": func(c *config.Config) { c.Deployment = "other" },
		"region":     func(c *config.Config) { c.Region = "b" },
		"node":       func(c *config.Config) { c.Node = "n2" },
		"shards":     func(c *config.Config) { c.Shards = 3 },
		"member":     func(c *config.Config) { c.Regions[1].Member = 3 },
		"older":      func(c *config.Config) { c.Regions[0].Member = 1 },
		"regions":    func(c *config.Config) { c.Regions = c.Regions[1:] },
	} {
		t.Run(name, func(t *testing.T) {
			c := testConfig(t.TempDir())
			lock, err := openFolder(c)
			if err != nil {
				t.Fatal(err)
			}
			lock.Close()
			change(&c)
			checkRefused(t, c, ErrForeign)
		})
	}
}

// TestFolderKnowsARestoredRegion: another region may have come back under a higher number; it can't go back to a lower one.
func TestFolderKnowsARestoredRegion(t *testing.T) {
	c := testConfig(t.TempDir())
	for _, member := range []uint16{2, 3} {
		c.Regions[0].Member = member
		lock, err := openFolder(c)
		if err != nil {
			t.Fatal(err)
		}
		lock.Close()
	}
	c.Regions[0].Member = 2
	checkRefused(t, c, ErrForeign)
}

func TestFolderThatIsNotOursIsRefused(t *testing.T) {
	for name, x := range map[string]struct {
		file, content string
		want          error
	}{
		"something else": {"thesis.tex", "x", ErrForeign},
		"newer":          {identityFile, `{"version": 2, "wheels": 4}`, ErrNewer},
		"damaged":        {identityFile, `{"versi`, ErrDamaged},
		"no version":     {identityFile, `{}`, ErrDamaged},
		"unknown field":  {identityFile, `{"version":1,"wheels":4}`, ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			c := testConfig(t.TempDir())
			if err := os.WriteFile(filepath.Join(c.Data, x.file), []byte(x.content), 0o644); err != nil {
				t.Fatal(err)
			}
			checkRefused(t, c, x.want)
		})
	}
}

// checkRefused opens a folder, which must fail in one line and change nothing.
func checkRefused(t *testing.T, c config.Config, want error) {
	t.Helper()
	before := contents(t, c.Data)
	_, err := openFolder(c)
	if !errors.Is(err, want) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("got %v, want %v", err, want)
	}
	if after := contents(t, c.Data); !reflect.DeepEqual(before, after) {
		t.Fatalf("%v became %v", before, after)
	}
}

func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = string(b)
	}
	return out
}

func TestFolderAfterACrashAtFirstUse(t *testing.T) {
	c := testConfig(t.TempDir())
	if err := os.WriteFile(filepath.Join(c.Data, identityTemp), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	lock, err := openFolder(c)
	if err != nil {
		t.Fatal(err)
	}
	lock.Close()
}
