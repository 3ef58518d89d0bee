package owner

import (
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot counts on while the machine sleeps, which the runtime's clock does not.
func sinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("owner: the system has no clock that counts from its start: " + err.Error())
	}
	return time.Duration(t.Nano())
}
