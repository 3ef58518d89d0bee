#!/usr/bin/env bash
# Checks leases.pml with SPIN: as it stands it must hold, every state visited, and with each of its mistakes it must break.
# Exit status 1 if any of that is not so. Names of mistakes on the command line check those alone.
set -uo pipefail
cd "$(dirname "$0")"
for tool in spin gcc; do
  command -v "$tool" >/dev/null || { echo "SPIN can't run: $tool is not installed (apt-get install spin gcc)"; exit 1; }
done
model=$PWD/leases.pml
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

# check [MISTAKE]: prints what SPIN's verifier says.
check() {
  spin -a ${1:+"-D$1"} "$model" && gcc -w -O2 -DSAFETY -DNOREDUCE -DCOLLAPSE -DMEMLIM=2000 -o pan pan.c &&
    timeout 100 ./pan -m1000000 -w24
}

failed=0
if [ $# -eq 0 ]; then
  check >out 2>&1
  states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' out)
  if grep -q 'errors: 0' out && ! grep -qE 'truncated|max search depth too small|out of memory|time limit' out; then
    echo "holds: $states states, all there are"
  else
    echo "leases.pml does NOT HOLD, or was not searched to the end:"
    cat out
    failed=1
  fi
  # The model lists its mistakes: capitals and two spaces at the least before what they mean.
  # shellcheck disable=SC2046 # a list of names
  set -- $(sed -n 's/^ \*   \([A-Z_]*\)  .*/\1/p' "$model")
  [ $# -gt 0 ] || { echo "leases.pml lists no mistakes"; exit 1; }
fi
for mistake in "$@"; do
  check "$mistake" >out 2>&1
  if grep -q 'pan:1: assertion violated' out; then
    printf '%-22s breaks it %s\n' "$mistake" "$(sed -n 's/pan:1: assertion violated .* \((at depth.*)\)/\1/p' out)"
  else
    printf '%-22s NOT FOUND\n' "$mistake"
    tail -20 out
    failed=1
  fi
done
exit $failed
