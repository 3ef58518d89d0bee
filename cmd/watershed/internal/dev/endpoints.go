package dev

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Endpoints says where everything listens: DIR/endpoints.json. Lists are in node order. The pid of a node that has died
// stays the old one until it is restarted.
type Endpoints struct {
	Version int                        `json:"version"` // of the file
	Regions map[string]RegionEndpoints `json:"regions"`
}

// RegionEndpoints are those of one region.
type RegionEndpoints struct {
	Kafka []string `json:"kafka"`
	GRPC  []string `json:"grpc"`
	HTTP  []string `json:"http"`
	PIDs  []int    `json:"pids"`
}

// endpointsVersion is that of the endpoints file.
const endpointsVersion = 1

func endpointsFile(dir string) string { return filepath.Join(dir, "endpoints.json") }

// ReadEndpoints reads DIR/endpoints.json.
func ReadEndpoints(dir string) (Endpoints, error) {
	var e Endpoints
	text, err := os.ReadFile(endpointsFile(dir))
	if err == nil {
		err = json.Unmarshal(text, &e)
	}
	if err == nil && e.Version > endpointsVersion {
		err = fmt.Errorf("the file has version %d, this watershed reads up to %d", e.Version, endpointsVersion)
	}
	if err != nil {
		return e, fmt.Errorf("read endpoints: %w", err)
	}
	return e, nil
}
