#!/bin/sh
# SPDX-License-Identifier: MIT
# pages.sh DIRECTORY TOOL… - write the manual pages: section 3 out of include/psbus.h, section 1 out of what TOOL (a command that
# runs psbus) says of itself, section 7 from psbus.7.in. Run where include/ and lib/ are.
set -eu

[ $# -ge 2 ] || { echo "pages.sh: usage: pages.sh DIRECTORY TOOL…" >&2; exit 1; }
out=$1
shift
here=lib/man
new=$out.new.$$
trap 'rm -rf "$new"' EXIT
trap 'exit 1' INT TERM HUP
mkdir -p "$new"

version=$(awk '/^#define PS_VERSION_(MAJOR|MINOR|PATCH) / { v = v dot $3; dot = "." } END { print v }' include/psbus.h)
# The day that stands with the newest version, so that pages do not differ from build to build.
date=$(sed -n 's/^## \[.*\].*\([0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]\).*/\1/p' CHANGELOG.md | head -n 1)

# Each step into a file, so that its failure is seen.
awk -v version="$version" -v date="$date" -f $here/roff.awk -f $here/functions.awk include/psbus.h >"$new/all"
awk -v new="$new" '/^@PAGE / { if (file) close(file); file = new "/" $2; next } { print >file }' "$new/all"
rm "$new/all"

# command NAME: "" is the tool as a whole.
command_page() {
    "$@" --help >"$new/help"
    awk -v command="$command" -v version="$version" -v date="$date" -f $here/roff.awk -f $here/command.awk "$new/help" \
        >"$new/psbus${command:+-$command}.1"
}

command=
command_page "$@"
for command in $(sed -n 's/^  psbus  *\([a-z][a-z]*\) .*/\1/p' "$new/help"); do
    command_page "$@" "$command"
done
rm "$new/help"

awk -v version="$version" -v date="$date" '
    FNR == NR { if ($0 ~ /^#define PS_[A-Z]+_MAX /) limit[substr($2, 4)] = $3; next }
    {
        while (match($0, /@[A-Z_]+@/)) {
            name = substr($0, RSTART + 1, RLENGTH - 2)
            if (name == "VERSION") by = version
            else if (name == "DATE") by = date
            else if (name in limit) by = limit[name]
            else { print "pages.sh: nothing is known of @" name "@" >"/dev/stderr"; exit 1 }
            $0 = substr($0, 1, RSTART - 1) by substr($0, RSTART + RLENGTH)
        }
        print
    }' include/psbus.h $here/psbus.7.in >"$new/psbus.7"

rm -rf "$out"
mv "$new" "$out"
