#!/bin/sh
# SPDX-License-Identifier: MIT
# test_lint.sh - what the sources promise about themselves: names, layers, both ends of orderings, documented codes, code in the
# README. Run by `make check`.
cd "$(dirname "$0")/.." || exit 1
. tests/script.sh

standard="${PS_WARNINGS:--Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror}"

# Files that people wrote, of the kinds that are named by their endings.
sources() {
    for ending in "$@"; do
        find include lib examples tests pkgconfig -type f -name "*.$ending"
    done | sort
}

# none WHAT FILE: the file, a list of faults, is empty.
none() {
    [ ! -s "$2" ] || { cat "$2"; fail "$1"; }
}

# ------------------------------------------------------------------ symbols

# API functions that the header declares, in the order of tests/exports.txt.
declared() { sed -n 's/^PS_API .*[ *]\(ps_[a-z_]*\)(.*/\1/p' include/psbus.h | sort; }

test_lint_exports_list_is_sorted_and_the_header_declares_it() {
    sort -c tests/exports.txt
    declared >"$scratch/found"
    same "functions of psbus.h" tests/exports.txt "$scratch/found"
}

test_lint_prefix_renames_every_function() {
    sed -n 's/^#define \(ps_[a-z_]*\)  *PS_JOIN(PS_PREFIX, \1)$/\1/p' include/psbus.h | sort >"$scratch/found"
    same "functions that PS_PREFIX renames" tests/exports.txt "$scratch/found"
}

test_lint_shared_library_exports_the_list_under_its_version() {
    nm -D --defined-only "$PS_BUILD/libpsbus.so" | awk '$2 != "A" { print $3 }' | sort >"$scratch/found"
    sed -n 's/^ *\(ps_[a-z_]*\);$/\1/p' lib/libpsbus.map | sort >"$scratch/map"
    same "names in libpsbus.map" tests/exports.txt "$scratch/map"
    # Each symbol carries the version that its comment says it is there since.
    awk '/Since [0-9]/ { since = $0; sub(/.*Since /, "", since) }
         /^PS_API / { name = $0; sub(/\(.*/, "", name); sub(/.*[ *]/, "", name); print name "@@PSBUS_" since }' include/psbus.h |
        sort >"$scratch/expected"
    same "symbols of libpsbus.so" "$scratch/expected" "$scratch/found"
}

test_lint_static_library_defines_only_names_of_ours() {
    nm -g --defined-only "$PS_BUILD/libpsbus.a" 2>"$scratch/nm" | awk 'NF == 3 && $3 !~ /^ps_/' >"$scratch/found"
    none "global names in libpsbus.a that do not begin with ps_" "$scratch/found"
}

test_lint_library_neither_prints_nor_aborts_nor_makes_threads() {
    nm -D -u "$PS_BUILD/libpsbus.so" | awk '{ sub(/@.*/, "", $2); print $2 }' >"$scratch/calls"
    printf '%s\n' printf fprintf vprintf vfprintf puts fputs fputc putchar fwrite perror stdout stderr stdin syslog \
        abort __assert_fail exit _exit quick_exit raise kill signal sigaction getenv secure_getenv setenv putenv \
        pthread_create fork system atexit >"$scratch/never"
    grep -Fx -f "$scratch/never" "$scratch/calls" >"$scratch/found" || true
    none "calls that the library promises not to make" "$scratch/found"
}

# ------------------------------------------------------------------ layers

# Which part of the library may use which, besides itself.
layers='
    BEGIN {
        below["base"] = " platform "
        below["ring"] = below["remote"] = below["core"] = " platform base "
        below["inproc"] = below["shm"] = " platform base ring "
    }
    function may(from, to) { return from == to || index(below[from], " " to " ") > 0 }'

# By the symbols of the objects.
test_lint_dependencies_point_down() {
    [ -d "$PS_BUILD/static/lib" ] || skip "the library was built from the pair"
    find "$PS_BUILD/static/lib" -name '*.o' | sort | while read -r object; do
        source=${object#"$PS_BUILD"/static/lib/}
        [ -r "lib/${source%.o}.c" ] || continue
        nm -g "$object" | awk -v file="${source%.o}" 'NF == 3 { print "D", $3, file } NF == 2 { print "U", $2, file }'
    done >"$scratch/symbols"
    awk "$layers"'
        function layer(file) { return substr(file, 1, index(file, "/") - 1) }
        $1 == "D" { defined[$2] = $3 }
        $1 == "U" { use[++uses] = $2; user[uses] = $3 }
        END {
            for (i = 1; i <= uses; i++) {
                if (!(use[i] in defined)) continue
                # The one place that knows the backends, by their tables alone.
                if (user[i] == "core/transport" && use[i] ~ /^ps__[a-z]*_transport$/) continue
                seen++
                if (!may(layer(user[i]), layer(defined[use[i]])))
                    print "lib/" user[i] ".c uses " use[i] " of lib/" defined[use[i]] ".c"
            }
            if (!seen) print "no file uses another: the objects were not found"
        }' "$scratch/symbols" >"$scratch/found"
    none "dependencies that do not point down" "$scratch/found"
}

# By what files include.
test_lint_includes_point_down() {
    grep -Hn '^ *# *include *"' $(sources c h | grep '^lib/') | sed 's/^lib\/\([a-z]*\)\/[^:]*:[0-9]*/\1 &/' | awk "$layers"'
        {
            include = $0
            sub(/^[^"]*"/, "", include)
            sub(/".*/, "", include)
            part = include ~ /\// ? include : $1 "/" include
            sub(/^(\.\.\/)+/, "", part)
            sub(/\/[^\/]*$/, "", part)
            if (part == "include" ? $1 == "platform" : !may($1, part)) print
        }' >"$scratch/found"
    none "includes that do not point down" "$scratch/found"
}

test_lint_examples_use_the_public_header_alone() {
    grep -n '^ *# *include *".*\(lib\|core\|ring\|shm\|platform\)/' $(sources c h | grep '^examples/') >"$scratch/found" || true
    none "private headers in examples" "$scratch/found"
    ! grep -n 'ps__' $(sources c h | grep '^examples/') || fail "private names in examples"
}

# ------------------------------------------------------------------ the header

# header_alone COMPILER LANGUAGE STANDARD…
header_alone() {
    header_compiler=$1 header_language=$2
    shift 2
    need "$header_compiler"
    # Twice: it must not mind being included again.
    printf '#include "psbus.h"\n#include "psbus.h"\n' >"$scratch/header.$header_language"
    for each in "$@"; do
        "$header_compiler" -std="$each" $standard -Iinclude -fsyntax-only "$scratch/header.$header_language"
        "$header_compiler" -std="$each" $standard -Iinclude -DPS_PREFIX=acme_ -fsyntax-only "$scratch/header.$header_language"
    done
}

test_lint_header_alone_c_gcc() { header_alone gcc c c11 c17 gnu11; }
test_lint_header_alone_c_clang() { header_alone clang c c11 c17 gnu11; }
test_lint_header_alone_cpp_gcc() { header_alone g++ cpp c++11 c++17 c++20; }
test_lint_header_alone_cpp_clang() { header_alone clang++ cpp c++11 c++17 c++20; }

# ------------------------------------------------------------------ result codes

codes() { sed -n 's/^    X(\(PS_E[A-Z]*\),.*/\1/p' include/psbus.h | sort; }

test_lint_every_code_that_is_named_exists() {
    codes >"$scratch/codes"
    [ -s "$scratch/codes" ] || fail "the header has no codes"
    grep -ohw 'PS_E[A-Z]\{2,\}' include/psbus.h README.md CHANGELOG.md lib/man/* $(sources c h) | sort -u |
        grep -vx -e PS_ERRORS -e PS_EXACT >"$scratch/named"
    comm -13 "$scratch/codes" "$scratch/named" >"$scratch/found"
    none "codes that are named and do not exist" "$scratch/found"
}

test_lint_every_code_is_documented_and_used() {
    codes >"$scratch/codes"
    # In the Returns of some function, at the beginning of a line or in a list of codes.
    grep -o '^ \*            \(PS_E[A-Z]*\(, \)\{0,1\}\)*' include/psbus.h | grep -o 'PS_E[A-Z]*' | sort -u >"$scratch/documented"
    # Not connected is what remote backends answer, which a transport of one's own may be.
    comm -23 "$scratch/codes" "$scratch/documented" | grep -vx PS_ENOTCONN >"$scratch/found" || true
    none "codes that no function documents" "$scratch/found"
    grep -ohw 'PS_E[A-Z]*' $(sources c h | grep '^lib/') | sort -u >"$scratch/used"
    comm -13 "$scratch/used" "$scratch/documented" >"$scratch/found"
    none "documented codes that the library never answers" "$scratch/found"
}

# ------------------------------------------------------------------ memory order

test_lint_every_sync_tag_has_both_ends() { awk -f tests/lint/sync.awk $(sources c h | grep '^lib/'); }

# It is the lint above that says when an end is missing, so it must not be deaf.
test_lint_missing_ends_are_told() {
    cat >"$scratch/ends.c" <<'EOF'
static void ends_give(void)
{
    ps__store_rel(&a, 1);       /* SYNC(lonely) release, other end ends_nobody */
    ps__store_rel(&b, 1);       /* SYNC(pair) release, other end ends_take */
    ps__store_rel(&d, 1);       /* SYNC(silent) release, other end ends_take */
    ps__store_rlx(&c, 1);       /* SYNC(order) relaxed */
}

static int ends_take(void)
{
    /* SYNC(pair) acquire, other end ends_give. */
    int last = ps__load_acq(&c);
    return ps__load_acq(&b) + last;
}
EOF
    ! awk -f tests/lint/sync.awk "$scratch/ends.c" >"$scratch/said" || fail "missing ends were not noticed"
    for what in 'SYNC(lonely): no end acquires' 'SYNC(lonely), ends_nobody, is no function' 'ends_take has no SYNC(silent)' \
        'SYNC(order): no end releases'; do
        grep -qF "$what" "$scratch/said" || { cat "$scratch/said"; fail "not said: $what"; }
    done
    ! grep -q 'SYNC(pair)' "$scratch/said" || { cat "$scratch/said"; fail "a pair is not seen as one"; }
}

test_lint_atomics_name_their_order() {
    grep -nE 'atomic_(load|store|exchange|compare_exchange_(weak|strong)|fetch_[a-z]+) *\(' $(sources c h | grep '^lib/') \
        >"$scratch/found" || true
    none "atomic operations without an order" "$scratch/found"
}

# Nor is an atomic object used as if it were a plain one, which means sequentially consistent. clang alone tells.
test_lint_atomic_objects_are_never_used_plainly() {
    command -v clang >/dev/null 2>&1 || skip "clang is not installed"
    for source in $(sources c | grep '^lib/'); do
        clang -std=c11 -Iinclude -fsyntax-only -Werror=atomic-implicit-seq-cst "$source" 2>&1 | grep 'error:' || true
    done >"$scratch/found"
    none "atomic objects that are used without an order" "$scratch/found"
}

# ------------------------------------------------------------------ README

# Blocks of C in the README, a file each.
readme_code() {
    awk -v out="$scratch/readme" '
        /^```/ && file != "" { close(file); file = ""; next }
        /^```c$/ { file = out "." ++n ".c"; printf "" >file; next }
        file != "" { print >file }
        END { print n + 0 }' README.md
}

test_lint_readme_hello_is_the_example() {
    [ "$(readme_code)" -gt 0 ] || fail "there is no C in the README"
    for block in "$scratch"/readme.*.c; do
        if cmp -s "$block" examples/hello.c; then return; fi
    done
    same "the program hello in the README" examples/hello.c "$scratch/readme.1.c"
}

# A block is a whole file, or what stands in a function.
test_lint_readme_code_compiles() {
    readme_code >"$scratch/count"
    for block in "$scratch"/readme.*.c; do
        if ! grep -q '#include' "$block"; then
            grep -v '^ *\.\.\. *$' "$block" >"$scratch/inner"
            {
                printf '#include <%s>\n' psbus.h stdio.h string.h
                printf 'void block(ps_bus *bus);\nvoid block(ps_bus *bus)\n{\n(void)bus;\n'
                cat "$scratch/inner"
                echo '}'
            } >"$block"
            $CC -std=c11 -Iinclude -fsyntax-only -w "$block" && continue
        fi
        $CC -std=c11 $standard -D_GNU_SOURCE -Iinclude -fsyntax-only "$block" || { cat "$block"; fail "this does not compile"; }
    done
}

test_lint_promises_name_tests_that_exist() {
    grep -oh '`test_[a-z0-9_]*`' tests/PROMISES.md README.md | tr -d '`' | sort -u >"$scratch/named"
    # As many promises as the README makes, and a test for each.
    sed -n '/^## What is promised/,/^## Limits/s/^\([0-9]*\)\. .*/\1/p' README.md >"$scratch/expected"
    awk '/^[0-9]+\. / { number = $1 + 0 } number && /`test_p[0-9]/ { print number; number = 0 }' tests/PROMISES.md \
        >"$scratch/found"
    [ -s "$scratch/expected" ] || fail "the README makes no promise"
    same "promises with a test in tests/PROMISES.md" "$scratch/expected" "$scratch/found"
    while read -r name; do
        grep -rqw "$name" tests --include='*.c' --include='*.sh' || echo "$name"
    done <"$scratch/named" >"$scratch/found"
    none "tests that are named in tests/PROMISES.md or the README and nobody wrote" "$scratch/found"
}

test_lint_readme_links_lead_somewhere() {
    grep -oh '](\([^)#:]*\))' README.md CHANGELOG.md | sed 's/^](//; s/)$//' | sort -u | while read -r target; do
        [ -e "$target" ] || echo "$target"
    done >"$scratch/found"
    none "links in README.md or CHANGELOG.md to files that are not there" "$scratch/found"
}

# ------------------------------------------------------------------ files

test_lint_sources_carry_their_licence() {
    for file in $(sources c h sh awk map) Makefile .ci/run; do
        head -n 2 "$file" | grep -q 'SPDX-License-Identifier: MIT' || echo "$file"
    done >"$scratch/found"
    none "files without SPDX-License-Identifier in their first two lines" "$scratch/found"
}

test_lint_nothing_is_left_to_do() {
    # The words are put together, so that this line is none of them.
    grep -nwE "TO""DO|FIX""ME|XX""X|HA""CK" $(sources c h sh awk in cmake map) Makefile .ci/run README.md CHANGELOG.md \
        >"$scratch/found" || true
    none "work that was left" "$scratch/found"
}

test_lint_lines_are_whole_and_not_long() {
    for file in $(sources c h sh awk in cmake map) Makefile .ci/run; do
        # Characters, not bytes: what continues a character in UTF-8 does not count. Tables of test cases may be wider.
        limit=130
        case $file in tests/*.c|tests/*.h) limit=160;; esac
        awk -v file="$file" -v limit=$limit '
            { text = $0; gsub(/[\200-\277]/, "", text) }
            length(text) > limit { print file ":" FNR ": " length(text) " characters" }
            /[ \t]$/ { print file ":" FNR ": blanks at the end" }
            /\r/ { print file ":" FNR ": a carriage return" }
            /\t/ && file ~ /\.(c|h|sh|awk)$/ { print file ":" FNR ": a tab" }' "$file"
        [ -z "$(tail -c 1 "$file")" ] || echo "$file: no newline at the end"
    done >"$scratch/found"
    none "lines that are too long, or not clean" "$scratch/found"
}

# One thought a file. The public header and test tables are what they are, and that a transport fits into one file is what the
# example of one shows.
# The one that is copied whole, as the pattern of a backend, is of one file. (The public header is not asked: its length is the
# contract's, which stands beside each declaration.)
test_lint_files_are_short() {
    for file in $(sources c h | grep -e '^lib/' -e '^examples/' | grep -v '^examples/custom_transport/unixgram.c$'); do
        lines=$(wc -l <"$file")
        [ "$lines" -le 500 ] || echo "$file has $lines lines"
    done >"$scratch/found"
    none "files of more than 500 lines" "$scratch/found"
}

test_lint_local_macros_end_with_their_file() {
    for file in $(sources c | grep '^lib/'); do
        awk -v file="$file" '
            /^# *define / { name = $2; sub(/\(.*/, "", name); if (name !~ /^_/ && name !~ /^PS_/) defined[name] = FNR }
            /^# *undef /  { delete defined[$2] }
            END { for (name in defined) print file ":" defined[name] ": " name " is not undefined at the end" }' "$file"
    done >"$scratch/found"
    none "macros that would leak into the next file of the pair" "$scratch/found"
}

# A test that nobody runs passes for ever.
test_lint_every_test_is_run() {
    for file in $(sources c | grep '^tests/'); do
        sed -n 's/^static void \(test_[a-z0-9_]*\)(void \*\*.*/\1/p' "$file" | while read -r name; do
            [ "$(grep -cw "$name" "$file")" -gt 1 ] || echo "$file: $name"
        done
    done >"$scratch/found"
    for file in tests/test_*.sh; do
        sed -n 's/^\(test_[a-z0-9_]*\)() {.*/\1/p' "$file" | while read -r name; do
            [ "$(grep -cw "$name" "$file")" -gt 1 ] || echo "$file: $name"
        done
    done >>"$scratch/found"
    none "tests that are in no list" "$scratch/found"
}

test_lint_make_help_lists_every_target() {
    sed -n 's/^\.PHONY: //p' Makefile | tr ' ' '\n' | grep -v -e FORCE -e '\$' | sort >"$scratch/expected"
    sed -n 's/^\([a-z][a-z-]*\):.*## .*/\1/p' Makefile | sort >"$scratch/found"
    same "targets with a line in make help" "$scratch/expected" "$scratch/found"
}

script_begin
script_case test_lint_exports_list_is_sorted_and_the_header_declares_it test_lint_prefix_renames_every_function \
    test_lint_shared_library_exports_the_list_under_its_version test_lint_static_library_defines_only_names_of_ours \
    test_lint_library_neither_prints_nor_aborts_nor_makes_threads \
    test_lint_dependencies_point_down test_lint_includes_point_down test_lint_examples_use_the_public_header_alone \
    test_lint_header_alone_c_gcc test_lint_header_alone_c_clang test_lint_header_alone_cpp_gcc test_lint_header_alone_cpp_clang \
    test_lint_every_code_that_is_named_exists test_lint_every_code_is_documented_and_used \
    test_lint_every_sync_tag_has_both_ends test_lint_missing_ends_are_told test_lint_atomics_name_their_order \
    test_lint_atomic_objects_are_never_used_plainly \
    test_lint_readme_hello_is_the_example test_lint_readme_code_compiles test_lint_promises_name_tests_that_exist \
    test_lint_readme_links_lead_somewhere \
    test_lint_sources_carry_their_licence test_lint_nothing_is_left_to_do test_lint_lines_are_whole_and_not_long \
    test_lint_files_are_short test_lint_local_macros_end_with_their_file test_lint_every_test_is_run \
    test_lint_make_help_lists_every_target
script_end
