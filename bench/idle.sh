#!/usr/bin/env bash
# Measures what an idle region costs: three nodes on this machine, no job, no events. Prints the processor time of each
# node in thousandths of a core, as the scheduler counts it, and its resident memory.
# Usage: bench/idle.sh [SECONDS [SHARDS]], by default 20 and 16.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-20} shards=${2:-16}
dir=$(mktemp -d)
go build -o "$dir/" ./cmd/watershed
"$dir/watershed" dev --regions us-east --nodes 3 --shards "$shards" --data "$dir/data" >"$dir/log" 2>&1 &
dev=$!
trap 'kill -TERM $dev 2>/dev/null || true; wait $dev || true; rm -rf "$dir"' EXIT
for _ in $(seq 600); do
  [ -e "$dir/data/endpoints.json" ] && break
  kill -0 $dev 2>/dev/null || { cat "$dir/log"; exit 1; }
  sleep 0.2
done
mapfile -t pids < <(grep -o '"pids": *\[[^]]*\]' <(tr -d '\n' <"$dir/data/endpoints.json") | grep -o '[0-9]\+')
sleep 6 # what starting has left to do
spent() { cat /proc/"$1"/task/*/schedstat | awk '{ns += $1} END {printf "%.0f", ns}'; }
declare -A before
for p in "${pids[@]}"; do before[$p]=$(spent "$p"); done
sleep "$seconds"
total=0
echo "load $(cut -d' ' -f1-3 /proc/loadavg), $shards shards, $seconds s"
for p in "${pids[@]}"; do
  used=$((($(spent "$p") - before[$p]) / (seconds * 1000000)))
  total=$((total + used))
  echo "node $p: $used/1000 of a core, $(awk '/VmRSS/ {print int($2 / 1024)}' "/proc/$p/status") MB resident"
done
echo "all: $total/1000 of a core"
