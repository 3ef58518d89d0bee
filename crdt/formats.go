package crdt

// Formats returns the versions of this package's encodings, by name.
func Formats() map[string]int {
	return map[string]int{"cell": cellVersion, "point": pointVersion, "advance": advanceVersion}
}
