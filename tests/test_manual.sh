#!/bin/sh
# SPDX-License-Identifier: MIT
# test_manual.sh - the manual pages: that they are all there, well formed, and say what the header and the tool say. Run by
# `make check`.
cd "$(dirname "$0")/.." || exit 1
. tests/script.sh

pages=$PS_BUILD/man
tool=$PS_BUILD/examples/psbus

commands() { "$tool" --help | sed -n 's/^  psbus  *\([a-z][a-z]*\) .*/\1/p'; }

# Options that a text names at the beginning of a line, without their values.
options_in() { sed -n 's/^ *\(-[a-zA-Z], \)\{0,1\}\(--[a-z][a-z-]*\).*/\2/p' | sort -u; }

# The same of a page, out of its source: what is set in bold behind .TP.
options_of_page() {
    sed -n '/^\.SH OPTIONS/,/^\.SH EXIT/p' "$1" | sed -n 's/^\.B //p' | sed 's/\\-/-/g' | options_in
}

test_manual_every_function_has_a_page_and_no_other() {
    { cat tests/exports.txt; echo ps_transport; } | sort >"$scratch/expected"
    ls "$pages" | sed -n 's/^\(ps_.*\)\.3$/\1/p' | sort >"$scratch/found"
    same "pages of section 3" "$scratch/expected" "$scratch/found"
}

test_manual_every_command_has_a_page_and_no_other() {
    commands | sort >"$scratch/expected"
    [ -s "$scratch/expected" ] || fail "the tool names no command"
    ls "$pages" | sed -n 's/^psbus-\(.*\)\.1$/\1/p' | sort >"$scratch/found"
    same "pages of section 1" "$scratch/expected" "$scratch/found"
    for page in psbus.1 psbus.3 psbus.7; do
        [ -s "$pages/$page" ] || fail "$page is missing"
    done
}

test_manual_help_and_page_name_the_same_options() {
    for command in $(commands); do
        "$tool" "$command" --help >"$scratch/help"
        options_in <"$scratch/help" >"$scratch/expected"
        options_of_page "$pages/psbus-$command.1" >"$scratch/found"
        same "options of psbus $command in --help and in its page" "$scratch/expected" "$scratch/found"
    done
}

# --help lists what the command takes: neither an option that it refuses, nor one less than its table has.
test_manual_help_names_the_options_that_are_taken() {
    for command in $(commands); do
        "$tool" "$command" --help | options_in | grep -vx -e --help >"$scratch/found" || true
        source=examples/psbus/$command.c
        [ -r "$source" ] || fail "$source, where the options of psbus $command would be, is not there"
        grep -o '{ "[a-z-]*", *[a-z]*_argument' "$source" | sed 's/{ "\([^"]*\)".*/--\1/' | sort -u |
            grep -vx -e --help >"$scratch/expected" || true
        same "options that psbus $command takes and names" "$scratch/expected" "$scratch/found"
        while read -r option; do
            # A call that ends at once, whatever the option: there are no arguments.
            timeout 10 "$tool" "$command" "$option=1" </dev/null >"$scratch/said" 2>&1 || true
            ! grep -q 'unknown option' "$scratch/said" || fail "psbus $command does not take $option"
        done <"$scratch/found"
    done
}

test_manual_url_options_are_those_of_the_parser() {
    sed -n 's/^    { "\([a-z]*\)", *URL_.*/\1/p' lib/base/url.c | sort >"$scratch/expected"
    [ -s "$scratch/expected" ] || fail "the parser's table has another form"
    sed -n '/^\.SH OPTIONS OF A URL/,/^\.SH TOPICS/s/^\.BI \([a-z]*\)= .*/\1/p' lib/man/psbus.7.in | sort >"$scratch/found"
    same "options in psbus(7)" "$scratch/expected" "$scratch/found"
    sed -n '/^ \* ps_open - /,/^ \* Returns/p' include/psbus.h | grep -o '[a-z][a-z]*=' | tr -d = | sort -u >"$scratch/found"
    same "options in the comment of ps_open" "$scratch/expected" "$scratch/found"
    # Lines like | `depth=N` | in the table of the README.
    sed -n 's/^| `\([a-z]*\)=[^`]*` |.*/\1/p' README.md | sort -u >"$scratch/found"
    same "options in the README" "$scratch/expected" "$scratch/found"
}

test_manual_mandoc_has_no_complaint() {
    need mandoc
    mandoc -Tlint -W warning "$pages"/*.[1-8] >"$scratch/lint" || true
    [ ! -s "$scratch/lint" ] || { cat "$scratch/lint"; fail "mandoc complains"; }
}

test_manual_groff_has_no_complaint() {
    need groff
    for page in "$pages"/*.[1-8]; do
        groff -ww -man -Tascii -z "$page" 2>>"$scratch/groff"
    done
    [ ! -s "$scratch/groff" ] || { cat "$scratch/groff"; fail "groff complains"; }
}

test_manual_pages_refer_to_pages_that_are_there() {
    # ".BR name (section)" of ours.
    sed -n 's/^\.BR \(ps[a-z_\\-]*\) (\([1-8]\)).*/\1.\2/p' "$pages"/*.[1-8] | sed 's/\\-/-/g' | sort -u >"$scratch/named"
    [ -s "$scratch/named" ] || fail "no page refers to another"
    while read -r page; do
        [ -e "$pages/$page" ] || fail "a page refers to $page, which does not exist"
    done <"$scratch/named"
}

# broken FROM TO: pages made of a header in which a line is another; in a tree of its own.
broken() {
    mkdir -p "$scratch/tree/include"
    sed "s/$1/$2/" include/psbus.h >"$scratch/tree/include/psbus.h"
    ! cmp -s include/psbus.h "$scratch/tree/include/psbus.h" || fail "nothing was broken by $1"
    cp -R lib CHANGELOG.md "$scratch/tree/"
    ( cd "$scratch/tree" && sh lib/man/pages.sh pages "$bin" )
}

test_manual_comment_of_another_shape_is_refused() {
    bin=$(cd "$(dirname "$tool")" && pwd)/psbus
    refuses 'are not in one line' broken 'Fork: legal in a child' 'Fork is legal in a child'
    refuses 'the comment of ps_wanted begins' broken ' \* ps_wanted - ' ' * ps_want - '
    refuses 'Blocking and Allocates' broken '   Allocates: a descriptor or four' ', a descriptor or four'
    [ ! -e "$scratch/tree/pages" ] || fail "pages were written"
}

script_begin
script_case test_manual_every_function_has_a_page_and_no_other test_manual_every_command_has_a_page_and_no_other \
    test_manual_help_and_page_name_the_same_options test_manual_help_names_the_options_that_are_taken \
    test_manual_url_options_are_those_of_the_parser \
    test_manual_mandoc_has_no_complaint test_manual_groff_has_no_complaint test_manual_pages_refer_to_pages_that_are_there \
    test_manual_comment_of_another_shape_is_refused
script_end
