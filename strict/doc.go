// Package strict reads YAML files that people write, such as jobs and tables: an unknown field, a name twice or a value of
// another type is refused with file, line, column and what was expected. It is pure.
package strict
