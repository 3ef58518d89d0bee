//go:build mutant

package mutant

import "os"

var chosen = os.Getenv("WATERSHED_MUTANT")

// On reports whether the named bug is switched on.
func On(name string) bool { return name == chosen }
