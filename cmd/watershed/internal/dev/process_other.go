//go:build !linux

package dev

import "syscall"

// dieWithParent does nothing: this system has no such thing, and children outlive a parent that is killed.
func dieWithParent(*syscall.SysProcAttr) {}
