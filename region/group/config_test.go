package group

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestConfigRules(t *testing.T) {
	members := []Member{{"n0", "localhost:1"}, {"n1", "localhost:2"}}
	if err := testConfig("dir", "n0", members).Validate(); err != nil {
		t.Fatal(err)
	}
	for field, breakIt := range map[string]func(*Config){
		"Dir":                func(c *Config) { c.Dir = "" },
		"Fatal":              func(c *Config) { c.Fatal = nil },
		"Deployment":         func(c *Config) { c.Deployment = "" },
		"Region":             func(c *Config) { c.Region = strings.Repeat("x", MaxName+1) },
		"NodeID":             func(c *Config) { c.NodeID = "n2" },
		"Members[1].ID":      func(c *Config) { c.Members = []Member{members[0], {"", "localhost:2"}} },
		"Members[1].Address": func(c *Config) { c.Members = []Member{members[0], {"n1", "localhost"}} },
		"Members[1]: id":     func(c *Config) { c.Members = []Member{members[0], {"n0", "localhost:2"}} },
		"Members[1]: add":    func(c *Config) { c.Members = []Member{members[0], {"n1", "localhost:1"}} },
		"ElectionTimeout":    func(c *Config) { c.HeartbeatTimeout, c.ElectionTimeout = time.Second, time.Second/2 },
		"LeaderLeaseTimeout": func(c *Config) { c.LeaderLeaseTimeout = time.Minute },
		"CommitTimeout":      func(c *Config) { c.CommitTimeout = time.Millisecond },
		"StoreTimeout":       func(c *Config) { c.StoreTimeout = -time.Second },
		"StallTimeout":       func(c *Config) { c.StallTimeout, c.StoreTimeout = time.Second, time.Second/2 },
		"MaxCommand":         func(c *Config) { c.MaxCommand = -1 },
	} {
		c := testConfig("dir", "n0", members)
		breakIt(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestQuietLogger(t *testing.T) {
	var out bytes.Buffer
	l := newQuietLogger(hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Info}))
	named := l.Named("sub").With("k", "v")
	for range 3 {
		l.Info("chatter")
		named.Error("peer is down")
	}
	l.Warn("heartbeat timeout reached, starting election")
	l.mute()
	l.Error("connection closed")
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "sub: peer is down: k=v") {
		t.Fatalf("got %q", got)
	}
}

func TestPosition(t *testing.T) {
	var p position
	p.advance(3)
	p.advance(2)
	if err := p.wait(context.Background(), 3, nil); err != nil || p.get() != 3 {
		t.Fatalf("at %d, %v", p.get(), err)
	}
	waiting := make(chan error, 2)
	for range 2 {
		go func() { waiting <- p.wait(context.Background(), 5, nil) }()
	}
	p.advance(4)
	p.advance(5)
	for range 2 {
		if err := <-waiting; err != nil {
			t.Fatal(err)
		}
	}
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.wait(canceled, 6, nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	stopped := make(chan struct{})
	close(stopped)
	if err := p.wait(context.Background(), 6, stopped); !errors.Is(err, ErrStopped) {
		t.Fatalf("got %v", err)
	}
}
