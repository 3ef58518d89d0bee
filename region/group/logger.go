package group

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/go-hclog"
)

// pebbleLogger hands Pebble's messages on. What is fatal to Pebble poisons the stores.
type pebbleLogger struct {
	logger hclog.Logger
	guard  *guard
}

var _ pebble.Logger = pebbleLogger{}

func (l pebbleLogger) Infof(format string, args ...any) { l.logger.Trace(fmt.Sprintf(format, args...)) }
func (l pebbleLogger) Errorf(format string, args ...any) {
	l.logger.Error(fmt.Sprintf(format, args...))
}

// Fatalf never returns, as Pebble expects: it ends the process, or (where Fatal returns) the goroutine.
func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.guard.fail(fmt.Errorf(format, args...))
	runtime.Goexit()
}

// quietEvery is how often one message of a group may repeat.
const quietEvery = time.Minute

// quietLogger makes Raft's chatter bearable: its Info becomes Debug, and a warning or error that repeats, as with a peer
// that is down, is said once a minute.
type quietLogger struct {
	hclog.Logger
	seen  *repeats
	muted *atomic.Bool // while the group stops, all is Debug: its peers' connections break as they should
}

type repeats struct {
	mu struct {
		sync.Mutex
		last map[string]time.Time // by message; Raft's messages are constants
	}
}

func newQuietLogger(logger hclog.Logger) *quietLogger {
	seen := &repeats{}
	seen.mu.last = make(map[string]time.Time)
	return &quietLogger{Logger: logger, seen: seen, muted: new(atomic.Bool)}
}

func (l *quietLogger) mute() { l.muted.Store(true) }

// usual are warnings and errors that belong to the course of things: an election, a follower that needs a snapshot.
var usual = map[string]bool{
	"heartbeat timeout reached, starting election":      true,
	"Election timeout reached, restarting election":     true,
	"rejecting pre-vote request since we have a leader": true,
	"rejecting vote request since we have a leader":     true,
	"appendEntries rejected, sending older logs":        true,
	"failed to get log":                                 true,
	"failed to get previous log":                        true,
	"skipping application of old log":                   true,
}

// due says whether the message may be said now.
func (r *repeats) due(message string, now time.Time) bool {
	const bound = 1024
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.mu.last[message]; ok && now.Sub(last) < quietEvery {
		return false
	}
	if len(r.mu.last) >= bound {
		clear(r.mu.last)
	}
	r.mu.last[message] = now
	return true
}

// Log maps the level as the methods named after levels do.
func (l *quietLogger) Log(level hclog.Level, message string, args ...any) {
	switch {
	case level <= hclog.Debug:
		l.Logger.Trace(message, args...)
	case level == hclog.Info || usual[message]:
		l.Logger.Debug(message, args...)
	case !l.muted.Load() && l.seen.due(message, time.Now()):
		l.Logger.Log(level, message, args...)
	default:
		l.Logger.Debug(message, args...)
	}
}

func (l *quietLogger) Debug(message string, args ...any) { l.Log(hclog.Debug, message, args...) }
func (l *quietLogger) Info(message string, args ...any)  { l.Log(hclog.Info, message, args...) }
func (l *quietLogger) Warn(message string, args ...any)  { l.Log(hclog.Warn, message, args...) }
func (l *quietLogger) Error(message string, args ...any) { l.Log(hclog.Error, message, args...) }

func (l *quietLogger) With(args ...any) hclog.Logger {
	return &quietLogger{Logger: l.Logger.With(args...), seen: l.seen, muted: l.muted}
}

func (l *quietLogger) Named(name string) hclog.Logger {
	return &quietLogger{Logger: l.Logger.Named(name), seen: l.seen, muted: l.muted}
}

func (l *quietLogger) ResetNamed(name string) hclog.Logger {
	return &quietLogger{Logger: l.Logger.ResetNamed(name), seen: l.seen, muted: l.muted}
}
