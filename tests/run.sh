#!/bin/sh
# SPDX-License-Identifier: MIT
# run.sh LOGDIR PROGRAM… - run test programs, each under a time limit; a line for each, the output of those that failed, and
# at last "N passed, N failed", counted in test cases. The exit status is 0 if nothing failed.
#
#   TIMEOUT  seconds a program may run (120)      JOBS  programs at the same time (1)
#   WRAP     a command to run the programs with, e.g. "setarch -R"
#
# What is counted is what cmocka prints: "[ RUN      ] name", and "[       OK ] name" or "[  SKIPPED ] name" after it. A program
# that ends badly without a failed test (a signal, the time limit, an exit status) counts as one failure.
set -u

limit=${TIMEOUT:-120}

now_ms() {
    ms=$(date +%s%3N 2>/dev/null)
    case $ms in *[!0-9]*|'') ms=$(date +%s)000;; esac
    echo "$ms"
}

# One program: its line, its output if it failed, and its counts in $log.count.
run_one() {
    program=$1
    log=$logs/$(echo "${program#*/tests/}" | tr '/' '-').log
    # At a terminal Ctrl-C has to reach the program and its children, so they stay in the foreground group; elsewhere the
    # limit ends all of them, because they have a group of their own.
    foreground=
    [ -t 1 ] && foreground=--foreground
    started=$(now_ms)
    # $foreground and $WRAP are split into words on purpose.
    timeout $foreground -k 5 "$limit" ${WRAP:-} "$program" >"$log" 2>&1 </dev/null
    status=$?
    took=$(( $(now_ms) - started ))

    # A test that was begun has failed unless it says otherwise: it may have ended the program, or only its teardown failed.
    counts=$(awk '
        function end_of_test() { if (begun) failed++; begun = 0 }
        /^\[ RUN      \]/              { end_of_test(); begun = 1 }
        /^\[       OK \]/              { ok += begun; begun = 0 }
        /^\[  SKIPPED \]/              { skipped += begun; begun = 0 }
        /^\[==========\].*\(s\) run/   { end_of_test() }
        /^\[  PASSED  \]/              { summaries++ }
        END { end_of_test(); print ok + 0, failed + 0, skipped + 0, summaries + 0 }' "$log")
    set -- $counts
    ok=$1 failed=$2 skipped=$3 summaries=$4

    why=
    if [ "$status" = 124 ] || [ "$status" = 137 ]; then
        why="took longer than $limit s, or was killed"
    elif [ "$status" -gt 128 ]; then
        why="ended by signal $(( status - 128 ))"
    elif [ "$status" != 0 ] && [ "$failed" = 0 ]; then
        why="exit status $status"
    elif [ "$status" = 0 ] && [ $(( ok + skipped )) = 0 ]; then
        why="ran no test"
    elif [ "$status" = 0 ] && [ "$summaries" = 0 ]; then
        why="ended before its summary"
    elif [ "$status" = 0 ] && [ "$failed" != 0 ]; then
        why="but exit status 0"
    fi
    [ "$failed" = 0 ] || why="$failed failed${why:+, $why}"
    [ -z "$why" ] || [ "$failed" != 0 ] || failed=1
    echo "$ok $failed $skipped" >"$log.count"

    verdict=PASS
    [ "$failed" = 0 ] || verdict=FAIL
    line=$(printf '%s  %-36s %4d tests %4d.%d s' "$verdict" "${program#*/tests/}" "$ok" \
        $(( took / 1000 )) $(( took % 1000 / 100 )))
    [ "$skipped" = 0 ] || line="$line  $skipped skipped"
    if [ "$verdict" = PASS ]; then
        echo "$line"
    else
        { echo "$line  ($why; output follows)"; sed 's/^/    | /' "$log"; } 2>&1
    fi
}

if [ "${1:-}" = --one ]; then
    logs=$2
    run_one "$3"
    exit 0
fi

logs=$1
shift
rm -rf "$logs"
mkdir -p "$logs" || exit 1
if [ $# = 0 ]; then
    echo "run.sh: there are no test programs" >&2
    echo "0 passed, 0 failed"
    exit 1
fi

if [ "${JOBS:-1}" -le 1 ]; then
    for program in "$@"; do
        run_one "$program"
    done
else
    printf '%s\n' "$@" | xargs -n 1 -P "$JOBS" sh "$0" --one "$logs"
fi

# A program without a count was never run to its end: that is a failure too.
cat "$logs"/*.count 2>/dev/null | awk -v programs=$# '
    { passed += $1; failed += $2; skipped += $3 }
    END {
        failed += programs - NR
        if (skipped)
            printf "%d skipped: what they need is not here\n", skipped
        printf "%d passed, %d failed\n", passed, failed
        exit failed || !passed
    }'
