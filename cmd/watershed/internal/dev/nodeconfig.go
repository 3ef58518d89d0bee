package dev

import (
	"fmt"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"

	"github.com/watershed-db/watershed/region/config"
)

// Sizes of a node that shares a machine with all others.
const (
	workerMemory = 64 << 20
	storeCache   = 32 << 20
	storeTable   = 4 << 20
)

// DefaultLogBytes is Options.LogBytes where nothing else is asked for.
const DefaultLogBytes config.Size = 32 << 20

// nodeConfig returns the configuration of a node. It dials other regions through the links.
func (d *Deployment) nodeConfig(r *regionLayout, n nodeLayout) config.Config {
	c := config.Config{
		Deployment: "dev", Region: r.Name, Node: n.ID, Data: filepath.Join(d.nodeDir(r.Name, n.ID), "data"),
		Shards: d.layout.Shards, Owner: d.layout.Regions[0].Name,
		Kafka:       config.Kafka{Brokers: d.brokers(r)},
		Worker:      config.Worker{Memory: workerMemory, FlushInterval: config.Duration(d.options.FlushInterval)},
		Raft:        config.Raft{LogBytes: d.options.LogBytes},
		Store:       config.Store{Cache: storeCache, Table: storeTable},
		Peers:       config.Peers{Fixed: true}, // the way round a link would be no cut
		Checkpoints: config.Checkpoints{URL: d.options.Checkpoints},
	}
	for i, other := range d.layout.Regions {
		c.Regions = append(c.Regions, config.Region{Name: other.Name, Member: uint16(i + 1), GRPC: d.linkTo(r.Name, other.Name)})
	}
	for _, node := range r.Nodes {
		c.Nodes = append(c.Nodes, config.Node{ID: node.ID, Raft: local(node.Raft), GRPC: local(node.GRPC), HTTP: local(node.HTTP)})
	}
	return c
}

// linkTo lists where nodes of one region dial those of another; nil within one.
func (d *Deployment) linkTo(from, to string) []string {
	var out []string
	for _, l := range d.layout.Links {
		if l.From == from && l.To == to {
			for _, p := range l.Ports {
				out = append(out, local(p))
			}
		}
	}
	return out
}

// writeConfig writes a node's configuration and returns the file's name.
func (d *Deployment) writeConfig(r *regionLayout, n nodeLayout) (string, error) {
	dir := d.nodeDir(r.Name, n.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("configure %s: %w", n.ID, err)
	}
	c := d.nodeConfig(r, n)
	if err := c.Validate(); err != nil {
		return "", fmt.Errorf("configure %s: %w", n.ID, err)
	}
	text, err := yaml.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("configure %s: %w", n.ID, err)
	}
	name := filepath.Join(dir, "node.yaml")
	if err := writeWhole(name, text, 0o644); err != nil {
		return "", fmt.Errorf("configure %s: %w", n.ID, err)
	}
	return name, nil
}
