// Package kafka runs real Apache Kafka brokers for tests, fetched by Maven: single-node KRaft clusters in processes of
// their own, which can be killed and started again on their data. kafka.sh beside it does the same by hand.
package kafka

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

//go:embed kafka.sh pom.xml log4j2.properties
var files embed.FS

const (
	// FlagEnv is the environment variable that, set to 1, makes tests use real brokers.
	FlagEnv = "WATERSHED_REAL_KAFKA"
	// stopTimeout is how long a broker may take to stop cleanly before it is killed.
	stopTimeout = 30 * time.Second
	// firstPort and ports are the range that ports are chosen from: below those that the kernel gives to outgoing
	// connections, which could take a broker's port while it is down.
	firstPort, ports = 20000, 10000
)

// Available says whether real brokers can be run here, and why not.
func Available() (ok bool, reason string) {
	for _, tool := range []string{"bash", "java", "mvn"} {
		if _, err := exec.LookPath(tool); err != nil {
			return false, tool + " is not installed"
		}
	}
	return true, ""
}

// Asked says whether the environment asks for real brokers.
func Asked() bool { return os.Getenv(FlagEnv) == "1" }

// Options say how a broker runs.
type Options struct {
	// DataDir holds its data and settings; it is made if it is missing. A folder that a broker has used before goes on
	// with that broker's ports.
	DataDir string
	// Properties are further server properties; they are taken when the folder is formatted.
	Properties map[string]string
	// JVM are further options of the JVM. The default is a small heap.
	JVM []string
}

// Broker is a broker of one node, or what is left of it after Kill or Stop. It is not safe for concurrent use.
type Broker struct {
	options Options
	port    int
	control int
	scripts string
	cmd     *exec.Cmd
	output  *tail
	exited  chan struct{} // closed when cmd has ended
}

// Start runs a broker and waits until it takes requests. The first call on a machine fetches Kafka, which takes a minute.
func Start(ctx context.Context, options Options) (*Broker, error) {
	if ok, reason := Available(); !ok {
		return nil, fmt.Errorf("start kafka: %s", reason)
	}
	b := &Broker{options: options, scripts: filepath.Join(options.DataDir, "scripts")}
	if err := b.writeScripts(); err != nil {
		return nil, fmt.Errorf("start kafka: %w", err)
	}
	if err := b.choosePorts(); err != nil {
		return nil, fmt.Errorf("start kafka: %w", err)
	}
	if err := b.run(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Broker) writeScripts() error {
	if err := os.MkdirAll(b.scripts, 0o755); err != nil {
		return err
	}
	entries, err := files.ReadDir(".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		content, err := files.ReadFile(e.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(b.scripts, e.Name()), content, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// choosePorts takes the folder's ports, or two that are free.
func (b *Broker) choosePorts() error {
	name := filepath.Join(b.options.DataDir, "ports")
	if content, err := os.ReadFile(name); err == nil {
		if _, err := fmt.Sscan(string(content), &b.port, &b.control); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		return nil
	}
	var err error
	if b.port, err = freePort(); err != nil {
		return err
	}
	for b.control = b.port; b.control == b.port; {
		if b.control, err = freePort(); err != nil {
			return err
		}
	}
	return os.WriteFile(name, fmt.Appendln(nil, b.port, b.control), 0o644)
}

func freePort() (int, error) {
	var err error
	for range 100 {
		port := firstPort + rand.IntN(ports)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}

// run starts the process and waits until the broker answers.
func (b *Broker) run(ctx context.Context) error {
	b.cmd = exec.Command("bash", filepath.Join(b.scripts, "kafka.sh"), "run", strconv.Itoa(b.port), b.options.DataDir,
		strconv.Itoa(b.control))
	var properties strings.Builder
	for k, v := range b.options.Properties {
		fmt.Fprintf(&properties, "%s=%s\n", k, v)
	}
	b.cmd.Env = append(os.Environ(), "KAFKA_PROPERTIES="+properties.String(),
		"KAFKA_JVM="+strings.Join(b.options.JVM, " "))
	b.output = new(tail)
	b.cmd.Stdout, b.cmd.Stderr = b.output, b.output
	b.exited = make(chan struct{})
	if err := startAndWait(b.cmd, b.exited); err != nil {
		return fmt.Errorf("start kafka: %w", err)
	}
	if err := b.awaitReady(ctx); err != nil {
		b.Kill()
		return fmt.Errorf("start kafka: %w:\n%s", err, b.output)
	}
	return nil
}

// startAndWait starts cmd, and closes exited when it has ended. One thread does both and does nothing else: a process that
// dies with its parent dies with the thread that started it.
func startAndWait(cmd *exec.Cmd, exited chan struct{}) error {
	dieWithParent(cmd)
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended shows in its state and output
		}
		close(exited)
	}()
	return <-started
}

// awaitReady asks until the broker knows itself to be part of its cluster.
func (b *Broker) awaitReady(ctx context.Context) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.Addr()), kgo.MetadataMinAge(100*time.Millisecond),
		kgo.RetryTimeout(time.Second))
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	for {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		meta, err := adm.BrokerMetadata(attempt)
		cancel()
		if err == nil && len(meta.Brokers) == 1 && meta.Controller >= 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", errors.Join(ctx.Err(), err))
		case <-b.exited:
			return fmt.Errorf("the broker ended: %s", b.cmd.ProcessState)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Addr returns HOST:PORT of the broker; it stays the same over restarts.
func (b *Broker) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port)) }

// PID returns the process of the broker.
func (b *Broker) PID() int { return b.cmd.Process.Pid }

// Output returns the last lines that the broker logged.
func (b *Broker) Output() string { return b.output.String() }

// Kill ends the broker as kill -9 does, and waits until it is gone. It can be called on a broker that has ended.
func (b *Broker) Kill() {
	_ = b.cmd.Process.Kill() // an error is a process that has ended
	<-b.exited
}

// Stop ends the broker cleanly, or after half a minute by Kill.
func (b *Broker) Stop() {
	_ = b.cmd.Process.Signal(syscall.SIGTERM) // an error is a process that has ended
	select {
	case <-b.exited:
	case <-time.After(stopTimeout):
		b.Kill()
	}
}

// Restart starts the broker again on its data and ports, and waits until it takes requests. One that runs is killed first.
func (b *Broker) Restart(ctx context.Context) error {
	b.Kill()
	return b.run(ctx)
}

// maxTail bounds what is kept of a broker's output.
const maxTail = 16 << 10

// tail keeps the end of what is written to it.
type tail struct {
	mu struct {
		sync.Mutex
		b []byte
	}
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.b = append(t.mu.b, p...)
	if over := len(t.mu.b) - maxTail; over > 0 {
		t.mu.b = append(t.mu.b[:0], t.mu.b[over:]...)
	}
	return len(p), nil
}

// String returns what is kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.mu.b))
}
