// Package mutant switches seeded bugs on, so that tests can show that they would see them. Without the build tag
// `mutant` every switch is a constant false and costs nothing; with it, the environment variable WATERSHED_MUTANT names
// the one that is on. Beside each switch stands the code that keeps the rule; jepsen/mutants.md lists them all.
package mutant
