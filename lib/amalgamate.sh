#!/bin/sh
# SPDX-License-Identifier: MIT
# amalgamate.sh DIRECTORY SOURCE… - write the library as two files, DIRECTORY/psbus.h and DIRECTORY/psbus.c. Run it where
# include/, lib/ and LICENSE are; SOURCE… are the library's sources, in any order.
#
# Nothing of the C is rewritten. psbus.h is the public header, byte for byte. psbus.c is the sources one behind the other, each
# private header in the place where it is first included. It works because statics carry the name of their file, every file
# includes what it uses, and functions shared between files are declared PS_PRIVATE, which is `static` here.
set -eu

fail() {
    echo "amalgamate.sh: $*" >&2
    exit 1
}

[ $# -ge 2 ] || fail "usage: amalgamate.sh DIRECTORY SOURCE…"
out=$1
shift
for file in include/psbus.h LICENSE "$@"; do
    [ -r "$file" ] || fail "cannot read $file"
done

mkdir -p "$out"
# Written under other names first, so that a failure in the middle leaves no half of a pair.
new=$out/psbus.c.new.$$
trap 'rm -f "$new"' EXIT
trap 'exit 1' INT TERM HUP

version=$(awk '/^#define PS_VERSION_(MAJOR|MINOR|PATCH) / { v = v dot $3; dot = "." } END { print v }' include/psbus.h)

{
    cat <<EOF
/* SPDX-License-Identifier: MIT */
/*
 * psbus.c - libpsbus $version in one file, made by \`make single\`. With psbus.h beside it, it is the whole library:
 *
 *   cc -c -O2 psbus.c          and link with -pthread
 *
 * A file that wants a copy of its own defines PS_STATIC and has #include "psbus.c" before any other include: then nothing of
 * the library is visible outside. -DPS_PREFIX=acme_ renames every public function, for a program that has two copies.
 *
EOF
    sed -e 's/^/ * /' -e 's/ *$//' LICENSE || fail "LICENSE could not be read"
    cat <<'EOF'
 */
#if !defined __STDC_VERSION__ || __STDC_VERSION__ < 201112L
#error "psbus.c is C11: it is compiled as C, by -std=c11 or what is younger"
#endif
#ifndef PS_PRIVATE
#define PS_PRIVATE static
#define PS_PRIVATE_OBJECT static
#endif
EOF
    awk '
        function directory(path) { return path ~ /\// ? substr(path, 1, match(path, /\/[^\/]*$/)) : "" }

        # "lib/core/../ring/ring.h" is "lib/ring/ring.h".
        function plain(path) {
            gsub(/\/\.\//, "/", path)
            while (match(path, /[^\/]+\/\.\.\//) && substr(path, RSTART, RLENGTH) != "../../")
                path = substr(path, 1, RSTART - 1) substr(path, RSTART + RLENGTH)
            return path
        }

        function die(text) { print "amalgamate.sh: " text >"/dev/stderr"; failed = 1; exit 1 }

        function banner(text,    rule) {
            rule = sprintf("%120s", "")
            gsub(/ /, "-", rule)
            printf "\n/* %s %s */\n\n", substr(rule, 1, 120 - length(text)), text
        }

        # The file with the headers it includes; those that are in already are left out.
        function emit(file, header,    line, got, name, depth) {
            banner(file)
            depth = 0
            while ((got = (getline line <file)) > 0) {
                if (line ~ /^[ \t]*#[ \t]*if/) depth++
                if (line ~ /^[ \t]*#[ \t]*endif/) depth--
                if (line ~ /^[ \t]*#[ \t]*include[ \t]*"/) {
                    # Under a condition of its own the first sight might not be compiled, and later ones are left out.
                    if (depth > header) die(file ": " line " stands inside a condition")
                    name = line
                    sub(/^[^"]*"/, "", name)
                    sub(/".*$/, "", name)
                    name = plain(directory(file) name)
                    if (name == "include/psbus.h") print "#include \"psbus.h\""
                    else if (!(name in seen)) {
                        seen[name] = 1
                        emit(name, 1)
                        banner("again " file)
                    }
                } else if (line !~ /SPDX-License-Identifier/) {
                    print line
                }
            }
            if (got < 0) die("cannot read " file)
            close(file)
        }

        BEGIN {
            for (i = 1; i < ARGC; i++) emit(plain(ARGV[i]), 0)
            exit failed
        }' "$@"
} >"$new" || fail "psbus.c could not be written"

cp include/psbus.h "$out/psbus.h"
mv "$new" "$out/psbus.c"
