#!/bin/sh
# SPDX-License-Identifier: MIT
# test_single.sh - the vendored pair, build/psbus.h and build/psbus.c, as somebody uses it who copied it. Run by `make check`.
cd "$(dirname "$0")/.." || exit 1
. tests/script.sh

standard="-std=c11 ${PS_WARNINGS:--Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror}"
pair=$PS_BUILD
consumers=tests/consumers
# Two runs at once must not meet.
url=shm://single.$$

# Symbols that an object shows to others, in the order of tests/exports.txt.
visible() {
    nm -g --defined-only "$1" | awk '{ print $NF }' | sort
}

# compiles_alone COMPILER FILE: with all warnings, with and without optimisation, and nothing but the API comes out.
compiles_alone() {
    need "$1"
    for level in -O0 -O2; do
        "$1" $standard $level -c "$2" -o "$scratch/alone.o"
        visible "$scratch/alone.o" >"$scratch/visible"
        same "symbols of $2 under $1 $level" tests/exports.txt "$scratch/visible"
    done
}

# Each level knows other things that may be wrong.
test_single_compiles_without_a_warning_at_every_level() {
    for level in -O1 -Og -O3; do
        $CC $standard $level -c "$pair/psbus.c" -o "$scratch/level.o"
    done
}

test_single_is_refused_as_another_language() {
    ! $CC -std=c99 -c "$pair/psbus.c" -o "$scratch/c99.o" 2>"$scratch/said" || fail "it compiles as C99"
    grep -q 'psbus.c is C11' "$scratch/said" || fail "the compiler does not say what is wrong"
}

reverse() {
    sources=
    for source in $PS_SOURCES; do
        sources="$source $sources"
    done
    sh lib/amalgamate.sh "$scratch/reverse" $sources
}

test_single_header_is_the_public_header() { cmp include/psbus.h "$pair/psbus.h"; }
test_single_compiles_alone_gcc() { compiles_alone gcc "$pair/psbus.c"; }
test_single_compiles_alone_clang() { compiles_alone clang "$pair/psbus.c"; }
test_single_reverse_order_compiles_gcc() { reverse; compiles_alone gcc "$scratch/reverse/psbus.c"; }
test_single_reverse_order_compiles_clang() { reverse; compiles_alone clang "$scratch/reverse/psbus.c"; }

test_single_holds_all_sources_once() {
    for file in $PS_SOURCES $(echo lib/*/*.h); do
        [ "$(grep -c -e "^/\* -* $file \*/\$" "$pair/psbus.c")" = 1 ] || fail "$file is not in the pair exactly once"
    done
    grep -q 'Permission is hereby granted' "$pair/psbus.c" || fail "the licence is missing"
}

test_single_linked_works() {
    $CC $standard -O2 -c "$pair/psbus.c" -o "$scratch/psbus.o"
    $CC $standard -O2 -I"$pair" "$consumers/linked.c" "$scratch/psbus.o" -pthread -o "$scratch/linked"
    "$scratch/linked" inproc://linked "$url"
}

# The line of the README, in a folder that has the pair and a program.
test_single_readme_line_works() {
    sed -n 's/^cc \(.* hello\.c psbus\.c .*\)$/\1/p' README.md >"$scratch/lines"
    [ "$(wc -l <"$scratch/lines")" -eq 1 ] || fail "the README has no line, or more than one, that compiles hello.c and psbus.c"
    mkdir "$scratch/folder"
    cp "$pair/psbus.h" "$pair/psbus.c" examples/hello.c "$scratch/folder/"
    ( cd "$scratch/folder" && $CC $(cat "$scratch/lines") )
    [ "$("$scratch/folder/hello" "$url")" = "greeting/english: hello, world" ]
}

test_single_static_shows_nothing_and_works() {
    for compiler in gcc clang; do
        command -v $compiler >/dev/null 2>&1 || continue
        for level in -O0 -O2; do
            $compiler $standard $level -I"$pair" -c "$consumers/static.c" -o "$scratch/static.o"
            echo main >"$scratch/main"
            visible "$scratch/static.o" >"$scratch/visible"
            same "symbols of a PS_STATIC file under $compiler $level" "$scratch/main" "$scratch/visible"
        done
        $compiler "$scratch/static.o" -pthread -o "$scratch/static"
        "$scratch/static" inproc://static "$url"
    done
}

test_single_static_behind_system_header_is_told() {
    printf '#include <stdio.h>\n#define PS_STATIC\n#include "psbus.c"\n' >"$scratch/late.c"
    [ -n "$(printf '#include <stdio.h>\n__GLIBC__\n' | $CC -E - | grep '^[0-9]')" ] || skip "only glibc lets us know"
    refuses 'include psbus.c first' $CC -std=gnu11 -I"$pair" -c "$scratch/late.c" -o "$scratch/late.o"
    $CC -std=gnu11 -D_GNU_SOURCE -I"$pair" -c "$scratch/late.c" -o "$scratch/late.o"
}

test_single_two_prefixes_and_another_library_in_one_program() {
    for prefix in acme_ zeta_; do
        $CC $standard -O2 -DPS_PREFIX=$prefix -c "$pair/psbus.c" -o "$scratch/$prefix.o"
        sed "s/^/$prefix/" tests/exports.txt >"$scratch/expected"
        visible "$scratch/$prefix.o" >"$scratch/visible"
        same "symbols under PS_PREFIX=$prefix" "$scratch/expected" "$scratch/visible"
        $CC $standard -O2 -DPS_PREFIX=$prefix -I"$pair" -c "$consumers/component.c" -o "$scratch/${prefix}part.o"
    done
    $CC $standard -O2 "$consumers/two.c" "$consumers/other.c" "$scratch"/acme_*.o "$scratch"/zeta_*.o -pthread -o "$scratch/two"
    "$scratch/two" "$url"
}

test_single_missing_source_is_refused_and_nothing_written() {
    refuses 'cannot read lib/core/none.c' sh lib/amalgamate.sh "$scratch/none" lib/base/error.c lib/core/none.c
    refuses 'usage:' sh lib/amalgamate.sh "$scratch/none"
    [ ! -e "$scratch/none" ] || fail "something was written"
}

test_single_licence_that_cannot_be_read_is_told() {
    mkdir -p "$scratch/tree/LICENSE" "$scratch/tree/include"
    cp include/psbus.h "$scratch/tree/include/"
    cp lib/amalgamate.sh "$scratch/tree/"
    refuses 'LICENSE could not be read' eval 'cd "$scratch/tree" && sh amalgamate.sh pair include/psbus.h'
    [ ! -e "$scratch/tree/pair/psbus.c" ] || fail "a pair without its licence was written"
}

test_single_header_in_a_condition_is_refused() {
    printf '#ifdef X\n#include "base/base.h"\n#endif\n' >"$scratch/condition.c"
    refuses 'stands inside a condition' sh lib/amalgamate.sh "$scratch/condition" "$scratch/condition.c"
    [ ! -e "$scratch/condition/psbus.c" ] || fail "half a pair was written"
}

script_begin
script_case test_single_header_is_the_public_header test_single_holds_all_sources_once \
    test_single_compiles_alone_gcc test_single_compiles_alone_clang \
    test_single_compiles_without_a_warning_at_every_level test_single_is_refused_as_another_language \
    test_single_reverse_order_compiles_gcc test_single_reverse_order_compiles_clang \
    test_single_linked_works test_single_readme_line_works test_single_static_shows_nothing_and_works \
    test_single_static_behind_system_header_is_told \
    test_single_two_prefixes_and_another_library_in_one_program \
    test_single_missing_source_is_refused_and_nothing_written test_single_licence_that_cannot_be_read_is_told \
    test_single_header_in_a_condition_is_refused
script_end
