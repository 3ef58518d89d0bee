package s3

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes a server end when the test that started it is killed.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
