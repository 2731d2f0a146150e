#!/bin/sh
# SPDX-License-Identifier: MIT
# instructions.sh PROGRAM LIMITS COMPILER - counts the instructions of publish and dispatch with valgrind's callgrind and compares
# them with a table of limits: times differ from run to run, counts do not. A line for each, and at last "N passed, N failed".
#
#   UPDATE=1   writes the table anew instead: 3 % above what is counted now
#
# The counts belong to one compiler and one processor family, so there is a table for each; without one, nothing is judged.
set -u
program=$1
limits=$2
compiler=$3

say_skip() {
    echo "instructions: $1; nothing was counted"
    echo "0 passed, 0 failed"
    exit 0
}
command -v valgrind >/dev/null 2>&1 || say_skip "valgrind is not installed (make deps installs it)"
machine=$(uname -m)
version=$("$compiler" -dumpversion 2>/dev/null)
family=gcc
"$compiler" --version 2>/dev/null | grep -qi clang && family=clang
name=$machine-$family-${version%%.*}
table=$limits/$name
[ -n "${UPDATE:-}" ] || [ -f "$table" ] || say_skip "no table for $name in $limits (UPDATE=1 makes one)"

# The C library picks its copy routines by the processor; without these it picks the same everywhere.
GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F,-AVX2,-AVX,-ERMS,-FSRM
export GLIBC_TUNABLES

dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

# Instructions for each message, with one decimal; nothing when something went wrong, which $dir/log then tells.
count() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no --toggle-collect=measured \
        "$program" "$1" "$2" >"$dir/times" 2>"$dir/log" || return 1
    awk -v times="$(cat "$dir/times")" '
        /Collected *:/ { n = $NF }
        END { if (n > 0 && times > 0) printf "%.1f\n", n / times }' "$dir/log"
}

passed=0
failed=0
for scheme in shm inproc; do
    for kind in publish-wanted publish-unwanted dispatch-many dispatch-one dispatch-unwanted dispatch-empty; do
        found=$(count "$kind" "$scheme://instructions.$$")
        if [ -z "$found" ]; then
            echo "FAIL  $kind $scheme (could not be counted; output follows)"
            sed 's/^/    | /' "$dir/log"
            failed=$((failed + 1))
            continue
        fi
        if [ -n "${UPDATE:-}" ]; then
            most=$(awk -v n="$found" 'BEGIN { printf "%d", n * 1.03 + 1 }')
            echo "$kind $scheme $most" >>"$dir/table"
        else
            most=$(awk -v k="$kind" -v s="$scheme" '$1 == k && $2 == s { print $3 }' "$table")
        fi
        line=$(printf '%-18s %-7s %8s instructions' "$kind" "$scheme" "$found")
        if [ -z "$most" ]; then
            echo "FAIL  $line (no limit in $table)"
            failed=$((failed + 1))
        elif awk -v n="$found" -v most="$most" 'BEGIN { exit !(n <= most) }'; then
            echo "PASS  $line, at most $most"
            passed=$((passed + 1))
        else
            echo "FAIL  $line, at most $most"
            failed=$((failed + 1))
        fi
    done
done
if [ -n "${UPDATE:-}" ] && [ "$failed" = 0 ]; then
    { echo "# Most instructions for each message, 64 bytes: kind, backend, limit. Written by make check-instructions UPDATE=1."
      cat "$dir/table"; } >"$table"
    echo "instructions: $table is written"
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
