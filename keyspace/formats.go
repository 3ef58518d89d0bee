package keyspace

// Formats returns the versions of what a store holds, by name. The database's own is raised by hand alone, since older
// builds can't read a raised one.
func Formats() map[string]int {
	return map[string]int{"store": formatVersion, "store operand": operandVersion, "store database": int(pebbleFormat)}
}
