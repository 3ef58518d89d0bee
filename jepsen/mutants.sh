#!/usr/bin/env bash
# Runs every seeded bug of mutants.md, or those named on the command line by number or name: its test must be green with
# the bug off and red with it on. Exit status 1 if any is not.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT

# play PACKAGE TEST [MUTANT]: runs one test of a package's binary, built once.
play() {
  local exe=$bin/${1//\//_}
  if [ ! -e "$exe" ]; then
    go test -tags mutant -c -o "$exe" "$1" >"$bin/out" 2>&1 || { cat "$bin/out"; exit 1; }
  fi
  local flags=()
  if [[ "$("$exe" -h 2>&1)" == *rapid.nofailfile* ]]; then flags=(-rapid.nofailfile -rapid.shrinktime=1s); fi
  local pattern="^${2//\//\$/^}\$"
  (cd "$root/$1" && WATERSHED_MUTANT="${3:-}" "$exe" -test.run "$pattern" -test.timeout 5m -test.v "${flags[@]}") >"$bin/out" 2>&1
}

failed=0 count=0
declare -A green
while IFS='|' read -r _ number name _ package test _; do
  number=${number// /} name=${name// /} package=${package// /} test=${test// /}
  if [ $# -gt 0 ] && [[ " $* " != *" $number "* && " $* " != *" $name "* ]]; then continue; fi
  count=$((count + 1))
  if [ -z "${green[$package $test]:-}" ]; then
    play "$package" "$test"
    status=$?
    if [ $status -ne 0 ] || ! grep -q '^--- PASS' "$bin/out"; then
      printf '%-4s %-32s %s %s is not green without it\n' "$number" "$name" "$package" "$test"
      tail -20 "$bin/out"
      failed=1
      continue
    fi
    green[$package $test]=1
  fi
  if play "$package" "$test" "$name"; then
    printf '%-4s %-32s NOT SEEN by %s %s\n' "$number" "$name" "$package" "$test"
    failed=1
  elif ! grep -q '^ *--- FAIL\|^panic:' "$bin/out"; then
    printf '%-4s %-32s broke the run instead of failing the test\n' "$number" "$name"
    tail -20 "$bin/out"
    failed=1
  else
    printf '%-4s %-32s seen by %s %s\n' "$number" "$name" "$package" "$test"
  fi
done < <(grep -E '^\| m?[0-9]' jepsen/mutants.md)
[ $count -gt 0 ] || { echo "no such seeded bug"; exit 1; }
exit $failed
