#!/bin/sh
# How long a shard is not to be had while every node of a region is replaced under load: three nodes become five and then three
# others, a node that comes and the one that carries a plan out are killed. Usage: bench/move.sh [RUNS]
# For each run, the longest time in ms that any shard went without an acknowledged write, without a linearizable read, and
# without an update seen by one; probes go to each shard every 10 ms.
set -eu
cd "$(dirname "$0")/.."
runs=${1:-10}
gaps=$(mktemp)
trap 'rm -f "$gaps"' EXIT
echo "load before: $(cut -d' ' -f1-3 /proc/loadavg)"
i=0
while [ "$i" -lt "$runs" ]; do
	i=$((i + 1))
	E2E_GAPS=$gaps go test -count=1 -run 'TestEveryNodeIsReplaced' ./jepsen/e2e >&2
done
echo "load after: $(cut -d' ' -f1-3 /proc/loadavg)"
echo
echo "| run | write, ms | read, ms | update, ms |"
echo "|---|---|---|---|"
awk '{ print "| " NR " | " $1 " | " $2 " | " $3 " |"
	for (i = 1; i <= 3; i++) if ($i > most[i]) most[i] = $i }
	END { print "| worst | " most[1] " | " most[2] " | " most[3] " |" }' "$gaps"
