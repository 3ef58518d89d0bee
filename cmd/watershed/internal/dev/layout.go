package dev

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// layoutVersion is that of the layout file.
const layoutVersion = 1

// Formats returns the versions of the files of a dev folder, by name.
func Formats() map[string]int {
	return map[string]int{"dev layout": layoutVersion, "dev endpoints": endpointsVersion}
}

// layout is what a deployment's folder says about it for as long as it lives: who is in it, and every port.
type layout struct {
	Version int            `json:"version"`
	Shards  int            `json:"shards"`
	Regions []regionLayout `json:"regions"` // in member order
	Links   []linkLayout   `json:"links"`
}

type regionLayout struct {
	Name  string       `json:"name"`
	Kafka int          `json:"kafka"` // port of the embedded Kafka; it is kept where --kafka names another
	Nodes []nodeLayout `json:"nodes"`
}

type nodeLayout struct {
	ID   string `json:"id"`
	Raft int    `json:"raft"`
	GRPC int    `json:"grpc"`
	HTTP int    `json:"http"`
}

// linkLayout is a directed link: where nodes of one region dial those of another, in node order.
type linkLayout struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Ports []int  `json:"ports"`
}

func newLayout(regions []string, nodes, shards int) (*layout, error) {
	l := &layout{Version: layoutVersion, Shards: shards}
	n := len(regions)
	ports, err := freePorts(n + 3*n*nodes + n*(n-1)*nodes)
	if err != nil {
		return nil, err
	}
	next := func() (p int) { p, ports = ports[0], ports[1:]; return p }
	for _, name := range regions {
		r := regionLayout{Name: name, Kafka: next()}
		for i := range nodes {
			r.Nodes = append(r.Nodes, nodeLayout{ID: fmt.Sprintf("%s-%d", name, i+1), Raft: next(), GRPC: next(), HTTP: next()})
		}
		l.Regions = append(l.Regions, r)
	}
	for _, from := range regions {
		for _, to := range regions {
			if from == to {
				continue
			}
			link := linkLayout{From: from, To: to}
			for range nodes {
				link.Ports = append(link.Ports, next())
			}
			l.Links = append(l.Links, link)
		}
	}
	return l, nil
}

// openLayout reads the layout of a folder, or makes one by o and writes it. What o names must fit one that is there.
func openLayout(o Options) (*layout, error) {
	name := filepath.Join(o.Data, "dev.json")
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if len(o.Regions) == 0 {
			o.Regions = []string{"us-east", "eu-west"}
		}
		l, err := newLayout(o.Regions, or(o.Nodes, 3), or(o.Shards, 8))
		if err == nil {
			err = l.knows(o.Kafka)
		}
		if err != nil {
			return nil, err
		}
		if err := writeJSON(name, l); err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the deployment's ports: %w", err)
	}
	l := &layout{}
	if err := json.Unmarshal(text, l); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", name, err)
	}
	return l, l.fits(name, o)
}

func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

func (l *layout) fits(name string, o Options) error {
	if l.Version != layoutVersion {
		return fmt.Errorf("%s has version %d, this watershed reads up to %d", name, l.Version, layoutVersion)
	}
	if len(l.Regions) == 0 || l.Shards == 0 {
		return fmt.Errorf("%s is damaged: it names no regions or no shards", name)
	}
	differs := func(what string, is, want any) error {
		return fmt.Errorf("%s holds a deployment with %s %v, not %v; take another folder", o.Data, what, is, want)
	}
	names := l.names()
	switch nodes := len(l.Regions[0].Nodes); {
	case len(o.Regions) > 0 && !slices.Equal(names, o.Regions):
		return differs("regions", strings.Join(names, ","), strings.Join(o.Regions, ","))
	case o.Nodes != 0 && o.Nodes != nodes:
		return differs("nodes", nodes, o.Nodes)
	case o.Shards != 0 && o.Shards != l.Shards:
		return differs("shards", l.Shards, o.Shards)
	}
	return l.knows(o.Kafka)
}

// knows says whether every region with a Kafka of its own is there.
func (l *layout) knows(kafka map[string][]string) error {
	names := l.names()
	for region := range kafka {
		if !slices.Contains(names, region) {
			return fmt.Errorf("%w: kafka of %q, which is none of the regions %s", ErrOptions, region, strings.Join(names, ", "))
		}
	}
	return nil
}

func (l *layout) names() []string {
	var out []string
	for _, r := range l.Regions {
		out = append(out, r.Name)
	}
	return out
}

// writeJSON writes a file whole: it is either the old one or the new one.
func writeJSON(name string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeWhole(name, append(text, '\n'), 0o644)
}

func writeWhole(name string, text []byte, mode fs.FileMode) error {
	next := name + ".next"
	if err := os.WriteFile(next, text, mode); err != nil {
		return err
	}
	return os.Rename(next, name)
}
