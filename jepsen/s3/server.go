// Package s3 runs a real server of the S3 protocol for tests, versitygw over a folder, in a process of its own that can be
// killed and started again on its data, and a proxy before it that makes it slow, busy or gone.
package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"
)

// Module is what `go install` is given where the server is not there yet.
const Module = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"

// What every Server takes.
const (
	AccessKey = "watershed"
	SecretKey = "not-a-secret-at-all"
	Bucket    = "checkpoints"
)

// BinaryEnv names the server's binary, where it is not to be looked for.
const BinaryEnv = "WATERSHED_VERSITYGW"

// readyWithin is for the server to answer.
const readyWithin = 20 * time.Second

// binary returns the server's path. It builds it where it is not there yet, which takes minutes the first time.
var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(BinaryEnv); path != "" {
		return path, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "watershed-ci")
	path := filepath.Join(dir, "versitygw")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	install := exec.Command("go", "install", Module)
	install.Dir = os.TempDir()
	install.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
	if out, err := install.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install %s: %w: %s", Module, err, bytes.TrimSpace(out))
	}
	return path, nil
})

// Available says whether a server can be run here, and why not. It may take minutes to find out.
func Available() (ok bool, reason string) {
	if _, err := binary(); err != nil {
		return false, err.Error()
	}
	return true, ""
}

// Environment returns the credentials of every Server, as the AWS tools read them, and keeps other sources out.
func Environment() []string {
	return []string{
		"AWS_ACCESS_KEY_ID=" + AccessKey, "AWS_SECRET_ACCESS_KEY=" + SecretKey, "AWS_REGION=us-east-1",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
	}
}

// Server is a server, or what is left of it after Kill. It is not safe for concurrent use.
type Server struct {
	dir    string
	addr   string
	cmd    *exec.Cmd
	output *output
	exited chan struct{} // closed when cmd has ended
}

// Start runs a server with an empty bucket, or on what an earlier one left in dir, and waits until it answers.
func Start(ctx context.Context, dir string) (*Server, error) {
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, addr: addr}
	for _, d := range [...]string{s.Data(), s.sidecar()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("start versitygw: %w", err)
		}
	}
	return s, s.Run(ctx)
}

// Data returns the folder that is the bucket.
func (s *Server) Data() string { return filepath.Join(s.dir, "data", Bucket) }

func (s *Server) sidecar() string { return filepath.Join(s.dir, "sidecar") }

// Addr returns HOST:PORT; it stays the same over Kill and Run.
func (s *Server) Addr() string { return s.addr }

// Run starts the process where it does not run, and waits until it answers.
func (s *Server) Run(ctx context.Context) error {
	path, err := binary()
	if err != nil {
		return err
	}
	s.cmd = exec.Command(path, "--port", s.addr, "--quiet", "posix", "--sidecar", s.sidecar(), filepath.Dir(s.Data()))
	s.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+AccessKey, "ROOT_SECRET_KEY="+SecretKey)
	s.output, s.exited = new(output), make(chan struct{})
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	if err := startAndWait(s.cmd, s.exited); err != nil {
		return fmt.Errorf("start versitygw: %w", err)
	}
	deadline := time.Now().Add(readyWithin)
	for {
		conn, err := net.DialTimeout("tcp", s.addr, time.Second)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-s.exited:
			err = errors.New("it has ended")
		case <-time.After(20 * time.Millisecond):
			if time.Now().Before(deadline) {
				continue
			}
		}
		s.Kill()
		return fmt.Errorf("start versitygw: %w: %s", err, s.output)
	}
}

// Kill ends the server as kill -9 does. It may be called twice.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.exited
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
			_ = cmd.Wait() // how it ended shows in its output
		}
		close(exited)
	}()
	return <-started
}

// freeAddress returns an address below those that systems give to outgoing connections.
func freeAddress() (string, error) {
	const firstPort, ports = 15000, 4000
	var err error
	for range 100 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(firstPort+rand.IntN(ports)))
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}

// maxOutput bounds what is kept of the server's output.
const maxOutput = 16 << 10

// output keeps the end of what is written to it.
type output struct {
	mu sync.Mutex
	b  []byte
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b = append(o.b, p...)
	if over := len(o.b) - maxOutput; over > 0 {
		o.b = append(o.b[:0], o.b[over:]...)
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(bytes.TrimSpace(o.b))
}
