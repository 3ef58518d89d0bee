// Package embedded runs a Kafka broker of its own in the process, for development and tests: franz-go's kfake with a data
// folder. It speaks the protocol, keeps what it acknowledged over a SIGKILL, and is no substitute for Kafka: it holds
// everything in memory too, a transaction that is open when it is killed is lost, and a fetch that its MaxBytes cuts short
// brings the records of aborted transactions as well.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/twmb/franz-go/pkg/kfake"
	"golang.org/x/sys/unix"
)

var (
	// ErrPortInUse: something else listens on a port of the Config.
	ErrPortInUse = errors.New("port is in use")
	// ErrLocked: another broker runs on the data folder.
	ErrLocked = errors.New("data folder is in use by another broker")
)

// Config says where a broker listens and keeps its data.
type Config struct {
	// Ports are those of the brokers on 127.0.0.1, one for each; no port is one broker on a port of its own choice.
	Ports []int
	// DataDir is made if it is missing. Empty keeps everything in memory.
	DataDir string
	// NoSync leaves writes to the page cache, which outlives the process and not the machine.
	NoSync bool
	// Logger is where the broker's warnings go. Nil is nowhere.
	Logger hclog.Logger
}

// Broker is a running broker.
type Broker struct {
	cluster *kfake.Cluster
	lock    *os.File // nil without a data folder
}

// Start starts a broker. It returns once it listens.
func Start(config Config) (*Broker, error) {
	logger := config.Logger
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	ports := config.Ports
	if len(ports) == 0 {
		ports = []int{0}
	}
	for _, p := range ports {
		if err := portFree(p); err != nil {
			return nil, err
		}
	}
	b := &Broker{}
	opts := []kfake.Opt{kfake.Ports(ports...), kfake.ClusterID("watershed-embedded"),
		kfake.WithLogger(brokerLogger{logger})}
	if config.DataDir != "" {
		lock, err := lockDir(config.DataDir)
		if err != nil {
			return nil, err
		}
		b.lock = lock
		opts = append(opts, kfake.DataDir(filepath.Join(config.DataDir, "broker")))
		if !config.NoSync {
			opts = append(opts, kfake.SyncWrites())
		}
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		b.unlock()
		return nil, fmt.Errorf("start embedded kafka in %s: %w", config.DataDir, err)
	}
	b.cluster = cluster
	return b, nil
}

// Run runs a broker until ctx is done, and then stops it cleanly. ready is called with its addresses once it listens.
func Run(ctx context.Context, config Config, ready func(addrs []string)) error {
	b, err := Start(config)
	if err != nil {
		return err
	}
	defer b.Close()
	if ready != nil {
		ready(b.Addrs())
	}
	<-ctx.Done()
	return nil
}

// Addrs returns HOST:PORT of every broker.
func (b *Broker) Addrs() []string { return b.cluster.ListenAddrs() }

// Close stops the broker and waits for it. It can be called twice.
func (b *Broker) Close() {
	b.cluster.Close()
	b.unlock()
}

func (b *Broker) unlock() {
	if b.lock != nil {
		_ = b.lock.Close() // the lock goes with the file
		b.lock = nil
	}
}

// portFree refuses a port that is taken before anything is opened.
func portFree(port int) error {
	if port == 0 {
		return nil
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("start embedded kafka on %s: %w", addr, ErrPortInUse)
	case err != nil:
		return fmt.Errorf("start embedded kafka: %w", err)
	}
	return l.Close()
}

// lockDir makes the folder and locks it for this process.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", dir, ErrLocked)
		}
		return nil, fmt.Errorf("lock data folder %s: %w", dir, err)
	}
	return f, nil
}

// brokerLogger passes kfake's warnings on.
type brokerLogger struct{ logger hclog.Logger }

// Logf implements kfake.Logger.
func (l brokerLogger) Logf(level kfake.LogLevel, format string, args ...any) {
	switch level {
	case kfake.LogLevelError, kfake.LogLevelWarn:
		l.logger.Warn(fmt.Sprintf(format, args...))
	case kfake.LogLevelInfo:
		l.logger.Debug(fmt.Sprintf(format, args...))
	}
}
