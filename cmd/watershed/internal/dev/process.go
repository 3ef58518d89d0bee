package dev

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// spawner starts child processes from one thread that lives until close: the system takes the end of the thread that
// started a child for the end of its parent (dieWithParent).
type spawner struct {
	starts chan func()
	done   chan struct{}
	once   sync.Once
}

func newSpawner() *spawner {
	s := &spawner{starts: make(chan func()), done: make(chan struct{})}
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with this goroutine
		for start := range s.starts {
			start()
		}
		close(s.done)
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	result := make(chan error, 1)
	s.starts <- func() { result <- cmd.Start() }
	return <-result
}

// close ends the thread, and with it every child that is left.
func (s *spawner) close() {
	s.once.Do(func() { close(s.starts) })
	<-s.done
}

// process is one run of a child process, from its start to its end.
type process struct {
	name    string
	cmd     *exec.Cmd
	log     string // the file of its output
	done    chan struct{}
	err     error // how it ended, once done is closed
	mu      sync.Mutex
	stopped bool // it was told to end
}

// launch starts a child with its output appended to a log file. ended is called from another goroutine when it is over.
func launch(s *spawner, name, logFile string, argv []string, ended func(*process)) (*process, error) {
	if err := os.MkdirAll(filepath.Dir(logFile), 0o755); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer out.Close() // the child has its own
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	// A group of its own: Ctrl-C on the terminal reaches this process alone, which stops the others in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
	if err := s.start(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, log: logFile, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
		ended(p)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// expected says whether the process was told to end.
func (p *process) expected() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopped
}

func (p *process) signal(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig) // it may have ended
}

// stop asks the process to end, waits, and then makes it. It can be called twice.
func (p *process) stop(within time.Duration) {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(within):
		p.signal(syscall.SIGKILL)
		<-p.done
	}
}

// fate says in a few words how the process ended.
func (p *process) fate() string {
	var exit *exec.ExitError
	switch {
	case p.err == nil:
		return "exit status 0"
	case errors.As(p.err, &exit):
		return exit.Error()
	}
	return p.err.Error()
}

// lastWords returns the last line that the process has logged.
func (p *process) lastWords() string {
	const tail = 4096
	f, err := os.Open(p.log)
	if err != nil {
		return ""
	}
	defer f.Close()
	if end, err := f.Seek(0, io.SeekEnd); err == nil {
		_, err = f.Seek(max(0, end-tail), io.SeekStart)
		if err != nil {
			return ""
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, tail))
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return strings.TrimPrefix(strings.TrimSpace(string(lines[len(lines)-1])), "watershed: ")
}
