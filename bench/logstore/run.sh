#!/usr/bin/env bash
# Compares log stores: every store, entry size and number of shards, alone and under a whole three-node Raft. The stores are
# measured in turn within each run, so that what else the machine does hits all of them. Prints what benchstat reads:
#   bench/logstore/run.sh >out.txt; benchstat -col /store out.txt
# RUNS, STORE_TIME and RAFT_TIME (a Go -benchtime) may be set; TMPDIR must be on a real disk.
set -euo pipefail
cd "$(dirname "$0")"
bin=$(mktemp)
trap 'rm -f "$bin"' EXIT
go test -c -o "$bin" .
for run in $(seq "${RUNS:-10}"); do
  echo "run $run, load $(cut -d' ' -f1-3 /proc/loadavg)" >&2
  "$bin" -test.run '^$' -test.bench Store -test.benchmem -test.benchtime "${STORE_TIME:-200ms}" -test.timeout 1h
  "$bin" -test.run '^$' -test.bench Raft -test.benchmem -test.benchtime "${RAFT_TIME:-300ms}" -test.timeout 1h
done
