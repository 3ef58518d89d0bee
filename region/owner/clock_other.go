//go:build !linux

package owner

import "time"

var started = time.Now()

// sinceBoot stands still while some systems sleep; the wall's clock, which does not, tells.
func sinceBoot() time.Duration { return time.Since(started) }
