package kafka

import (
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/twmb/franz-go/pkg/kgo"
)

// repeatAfter is how long the same message of the client library is not logged again: while a broker is down it would
// come with every attempt.
const repeatAfter = 10 * time.Second

// clientLogger passes the client library's warnings on, each at most once in repeatAfter.
type clientLogger struct {
	logger hclog.Logger
	mu     struct {
		sync.Mutex
		last map[string]time.Time // by message; the library's messages are constants, so it stays small
	}
}

func newClientLogger(l hclog.Logger) *clientLogger {
	c := &clientLogger{logger: l}
	c.mu.last = make(map[string]time.Time)
	return c
}

// Level implements kgo.Logger.
func (l *clientLogger) Level() kgo.LogLevel {
	switch {
	case l.logger.IsTrace():
		return kgo.LogLevelDebug
	case l.logger.IsDebug():
		return kgo.LogLevelInfo
	default:
		return kgo.LogLevelWarn
	}
}

// Log implements kgo.Logger.
func (l *clientLogger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	switch level {
	case kgo.LogLevelDebug:
		l.logger.Trace(msg, keyvals...)
	case kgo.LogLevelInfo:
		l.logger.Debug(msg, keyvals...)
	default:
		if l.due(msg, time.Now()) {
			l.logger.Warn(msg, keyvals...)
		}
	}
}

func (l *clientLogger) due(msg string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last, ok := l.mu.last[msg]; ok && now.Sub(last) < repeatAfter {
		return false
	}
	l.mu.last[msg] = now
	return true
}
