#!/usr/bin/env bash
# Measures Watershed on this machine and prints Markdown tables: `watershed run` beside a hand-written scan of the same
# files, then one region of three nodes fed from an embedded Kafka, and what the
# loss of a node costs it. bench/RESULTS.md says what they mean.
# Usage: bench/run.sh [run|region|loss|shards|reads|restart|checkpoint|soak|watchers|all], with EVENTS, ROUNDS, REGION_EVENTS, REGION_ROUNDS, LIVE, KILLS,
# CHECKPOINT_EVENTS, CHECKPOINT_KEYS, CHECKPOINT_PAD and RESTART from the environment.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-all}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
go build -o "$dir/" ./cmd/watershed ./bench

run() {
  local wiki=../shared/data/wiki-edits.jsonl.gz files=()
  "$dir/bench" gen --events "${EVENTS:-5000000}" --out "$dir/rides.jsonl"
  "$dir/bench" gen --events "${EVENTS:-5000000}" --format csv --out "$dir/rides.csv"
  if [ -e "$wiki" ]; then
    zcat "$wiki" >"$dir/wiki.jsonl"
    files=(--wiki "$wiki" --wiki-plain "$dir/wiki.jsonl")
  else
    echo "no wiki file at $wiki: left out" >&2
  fi
  "$dir/bench" run --watershed "$dir/watershed" --rounds "${ROUNDS:-5}" "${files[@]}" \
    --rides "$dir/rides.jsonl" --rides-csv "$dir/rides.csv"
}

region() {
  "$dir/bench" region --watershed "$dir/watershed" --events "${REGION_EVENTS:-2000000}" \
    --rounds "${REGION_ROUNDS:-3}" --live "${LIVE:-30s}"
}

loss() {
  for fault in kill pause stop; do
    "$dir/bench" loss --watershed "$dir/watershed" --fault $fault --kills "${KILLS:-30}"
  done
}

shards() {
  for n in 1 2 4 8 16; do
    "$dir/bench" region --watershed "$dir/watershed" --shards $n --events "${REGION_EVENTS:-2000000}" \
      --rounds "${REGION_ROUNDS:-3}" --live 0s --idle 5s
  done
}

reads() {
  "$dir/bench" reads --watershed "$dir/watershed"
}

restart() { # RESTART="--nodes 1 --keys 1000000 --events 3000000 --pad 5000" for some gigabytes
  # shellcheck disable=SC2086 # flags
  "$dir/bench" restart --watershed "$dir/watershed" ${RESTART:-}
}

checkpoint() {
  "$dir/bench" checkpoint --watershed "$dir/watershed" --events "${CHECKPOINT_EVENTS:-2000000}" --keys "${CHECKPOINT_KEYS:-1000000}" \
    --pad "${CHECKPOINT_PAD:-0}"
}

soak() { # MINUTES: 30 by default, after 20 in which things fill
  "$dir/bench" soak --watershed "$dir/watershed" --minutes "${MINUTES:-30}"
}

watchers() {
  "$dir/bench" watchers --watershed "$dir/watershed"
}

case $what in
soak) soak ;;
loss) loss ;;
shards) shards ;;
reads) reads ;;
restart) restart ;;
watchers) watchers ;;
run) run ;;
region) region ;;
checkpoint) checkpoint ;;
all) run && region && loss && shards && reads && checkpoint ;;
*) echo "usage: bench/run.sh [run|region|loss|shards|reads|restart|checkpoint|soak|watchers|all]" >&2 && exit 2 ;;
esac
