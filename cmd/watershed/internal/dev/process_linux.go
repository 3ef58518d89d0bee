package dev

import "syscall"

// dieWithParent makes a child end when the thread that started it does, so also when this process is killed.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
