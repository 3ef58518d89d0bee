// Package upkeep is what the leader of a shard sees to besides taking commands in: which regions can be reached, which of
// their sources are idle, how far the horizon may move (rules A7), copies that nobody fills any more, and that replicas
// agree, sessions and floors of tables that every region writes. Decider says what to propose; Run looks at the shard every so often and proposes it.
package upkeep
