package cases

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ErrNoData says that the real files are not there: neither in the folder that WATERSHED_DATA names nor in shared/data
// beside the project. A test skips on it, and says so.
var ErrNoData = errors.New("no real data: set WATERSHED_DATA or put it into ../shared/data")

// DataDir finds the folder of the real files, or gives ErrNoData.
func DataDir() (string, error) {
	if dir := os.Getenv("WATERSHED_DATA"); dir != "" {
		if _, err := os.Stat(dir); err != nil {
			return "", fmt.Errorf("%w: %w", ErrNoData, err)
		}
		return dir, nil
	}
	at, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find real data: %w", err)
	}
	for {
		dir := filepath.Join(at, "shared", "data")
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir, nil
		}
		up := filepath.Dir(at)
		if up == at {
			return "", ErrNoData
		}
		at = up
	}
}

// dataLines reads the lines of a compressed real file.
func dataLines(name string) ([][]byte, error) {
	dir, err := DataDir()
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNoData, err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	text, err := io.ReadAll(unzipped)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return bytes.Split(bytes.TrimRight(text, "\n"), []byte("\n")), nil
}
