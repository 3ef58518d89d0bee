package e2e

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes a child end when the test is killed.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
