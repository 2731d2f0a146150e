# SPDX-License-Identifier: MIT
# script.sh - read by the tests that are scripts (tests/test_*.sh): runs their cases and prints what cmocka would, which is what
# tests/run.sh counts. A case is a function; it runs in a subshell under `set -e`, fails by any command that fails, and is
# skipped by `skip`. Not run by itself.
#
#   script_begin               after the functions; makes $scratch, a directory that goes away at the end
#   script_case FUNCTION…
#   script_end                 prints the sum and ends the script
#
# From `make check`: PS_BUILD, PS_MAKE, PS_SOURCES, PS_WARNINGS, CC, CXX.
set -u

: "${PS_BUILD:=build}" "${PS_MAKE:=make}" "${CC:=cc}" "${CXX:=c++}"
script_ok=0 script_failed=0 script_skipped=0

# What make calls need: quiet, and no jobs of a make above us that we cannot take part in.
MAKEFLAGS=$(printf '%s\n' "${MAKEFLAGS:-}" | sed -e 's/--jobserver[^ ]*//g' -e 's/-j[0-9]*//g')
export MAKEFLAGS
LC_ALL=C
export LC_ALL

# The rest of the case is not run: what it needs is not here.
skip() {
    echo "skipped: $*"
    exit 77
}

# need PROGRAM…: skipped where one is missing.
need() {
    for need_program in "$@"; do
        command -v "$need_program" >/dev/null 2>&1 || skip "$need_program is not installed (make deps)"
    done
}

fail() {
    echo "failed: $*"
    exit 1
}

# same WHAT FILE FILE: two files with the same text.
same() {
    diff -u "$2" "$3" || fail "$1"
}

# refuses PATTERN COMMAND…: the command fails and says so in a line that matches.
refuses() {
    refuses_pattern=$1
    shift
    if "$@" >"$scratch/.refused" 2>&1; then
        cat "$scratch/.refused"
        fail "$* did not fail"
    fi
    grep -q -e "$refuses_pattern" "$scratch/.refused" || { cat "$scratch/.refused"; fail "$* does not say '$refuses_pattern'"; }
}

script_begin() {
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/psbus-test.XXXXXX") || exit 1
    trap 'rm -rf "$scratch"' EXIT
    trap 'exit 130' INT TERM HUP
}

script_case() {
    for script_name in "$@"; do
        echo "[ RUN      ] $script_name"
        # Not behind || or in a condition, where `set -e` would be without effect.
        ( set -e; "$script_name" )
        script_status=$?
        case $script_status in
        0)  script_ok=$((script_ok + 1)); echo "[       OK ] $script_name";;
        77) script_skipped=$((script_skipped + 1)); echo "[  SKIPPED ] $script_name";;
        *)  script_failed=$((script_failed + 1)); echo "[  FAILED  ] $script_name";;
        esac
    done
}

script_end() {
    echo "[==========] $((script_ok + script_failed + script_skipped)) test(s) run."
    echo "[  PASSED  ] $script_ok test(s)."
    [ "$script_failed" = 0 ]
    exit
}
