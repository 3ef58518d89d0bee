//go:build unix

package limit

import "golang.org/x/sys/unix"

// StatFS returns the room of the file system that path lies on.
func StatFS(path string) (Space, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return Space{}, err
	}
	return Space{uint64(s.Blocks) * uint64(s.Bsize), uint64(s.Bavail) * uint64(s.Bsize)}, nil
}
