#!/usr/bin/env bash
# Measures `watershed run` beside the floor (bench/floor) on generated events and on the wiki file, where it is there:
# processor seconds (user and system) and records a second of one core, the best of several rounds, since other work on
# the machine only ever adds. Usage: bench/run.sh [events] [rounds]
set -euo pipefail
cd "$(dirname "$0")/.."
events=${1:-5000000} rounds=${2:-5}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
go build -o "$dir/" ./cmd/watershed ./bench/generate ./bench/floor

# best COMMAND...: the least processor seconds of a round
best() {
  for _ in $(seq "$rounds"); do
    (TIMEFORMAT='%U %S'; time "$@" >"$dir/out") 2>&1
  done | awk '{ s = $1 + $2; if (m == "" || s < m) m = s } END { print m }'
}

# compare NAME RECORDS FILE JOB TOPIC
compare() {
  local run floor
  floor=$(best "$dir/floor" "$3")
  run=$(best "$dir/watershed" run --job "$4" --input "$5=$3")
  awk -v name="$1" -v n="$2" -v f="$floor" -v r="$run" 'BEGIN {
    printf "%-12s %9d records   floor %6.2f s, %8.0f/s   run %6.2f s, %8.0f/s   %.2f floors\n", name, n, f, n/f, r, n/r, r/f }'
}

"$dir/generate" -n "$events" >"$dir/rides.jsonl"
compare generated "$events" "$dir/rides.jsonl" bench/rides.yaml rides
wiki=../shared/data/wiki-edits.jsonl.gz
if [ -e "$wiki" ]; then
  # Twenty times over, so that starting up does not count.
  for _ in $(seq 20); do zcat "$wiki"; done >"$dir/wiki.jsonl"
  compare wiki "$(wc -l <"$dir/wiki.jsonl")" "$dir/wiki.jsonl" bench/edits.yaml edits
else
  echo "no wiki file at $wiki: left out"
fi
