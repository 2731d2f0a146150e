#!/bin/sh
# SPDX-License-Identifier: MIT
# install.sh install|uninstall - put what was built where it belongs, or take exactly that away again. Run by the Makefile:
#
#   BUILD VERSION CC RECORD                             what was built; a file below BUILD
#   DESTDIR                                             put before every path, and found in no installed file
#   PREFIX BINDIR LIBDIR INCLUDEDIR MANDIR DATADIR      absolute
#
# There is one list of files, for both directions. What install put there and the directories it made are remembered in $RECORD,
# and uninstall removes those. Where the record is lost, it goes by the names and takes the directories that are empty then.
set -eu

record=$RECORD
case ${DESTDIR:-} in
''|/*) root=${DESTDIR:-};;
*)     root=$(pwd)/$DESTDIR;;
esac
root=${root%/}
major=${VERSION%%.*}
minor=${VERSION#*.}
minor=${minor%%.*}
abi=$major
[ "$major" != 0 ] || abi=0.$minor       # as in the Makefile

die() {
    echo "$action: $*" >&2
    exit 1
}

# The manual pages by name: uninstall must know them when nothing is built.
pages() {
    echo psbus.1 psbus.3 psbus.7 ps_transport.3
    sed -n 's/^ *\(ps_[a-z_]*\);.*/\1.3/p' lib/libpsbus.map
    for page_command in bench doctor ls pub sub top why; do
        echo "psbus-$page_command.1"
    done
}

# files DO: calls `DO file MODE SOURCE DESTINATION` or `DO link TARGET DESTINATION` for everything that is installed.
files() {
    "$1" file 644 include/psbus.h "$INCLUDEDIR/psbus.h"
    "$1" file 644 "$BUILD/libpsbus.a" "$LIBDIR/libpsbus.a"
    "$1" file 755 "$BUILD/libpsbus.so.$VERSION" "$LIBDIR/libpsbus.so.$VERSION"
    "$1" link "libpsbus.so.$VERSION" "$LIBDIR/libpsbus.so.$abi"
    "$1" link "libpsbus.so.$abi" "$LIBDIR/libpsbus.so"
    "$1" file 644 "$filled/psbus.pc" "$LIBDIR/pkgconfig/psbus.pc"
    "$1" file 644 "$filled/psbusConfig.cmake" "$LIBDIR/cmake/psbus/psbusConfig.cmake"
    "$1" file 644 "$filled/psbusConfigVersion.cmake" "$LIBDIR/cmake/psbus/psbusConfigVersion.cmake"
    "$1" file 755 "$BUILD/examples/psbus" "$BINDIR/psbus"
    for page in $(pages); do
        "$1" file 644 "$BUILD/man/$page" "$MANDIR/man${page##*.}/$page"
    done
    [ ! -e examples/psbus/psbus.bash ] ||
        "$1" file 644 examples/psbus/psbus.bash "$DATADIR/bash-completion/completions/psbus"
    [ ! -e examples/psbus/_psbus ] ||
        "$1" file 644 examples/psbus/_psbus "$DATADIR/zsh/site-functions/_psbus"
}

# The way from one absolute path to another, relative if they share more than the root.
relative() {
    from=$1 up=
    while [ -n "$from" ]; do
        case $2/ in
        "$from"/*)
            rest=${2#"$from"}
            echo "$up${rest#/}"
            return
            ;;
        esac
        from=${from%/*}
        up=../$up
    done
    echo "$2"
}

# A path as it is written behind ${prefix} where it lies below it, so that pkg-config can move the whole.
below_prefix() {
    case $1 in
    "$PREFIX"/*) echo "\${prefix}${1#"$PREFIX"}";;
    *) echo "$1";;
    esac
}

# fill TEMPLATE NAME=VALUE…: @NAME@ becomes the value, whatever characters it has.
fill() {
    template=$1
    shift
    env "$@" awk '{
        out = ""
        while (match($0, /@[A-Z]+@/)) {
            name = substr($0, RSTART + 1, RLENGTH - 2)
            if (!(name in ENVIRON)) { print "nothing is known of @" name "@" >"/dev/stderr"; exit 1 }
            out = out substr($0, 1, RSTART - 1) ENVIRON[name]
            $0 = substr($0, RSTART + RLENGTH)
        }
        print out $0
    }' "$template"
}

fill_templates() {
    pointer=$(echo __SIZEOF_POINTER__ | $CC -E -P - | tr -d ' \n')
    fill pkgconfig/psbus.pc.in "VERSION=$VERSION" "PREFIX=$PREFIX" "LIBDIR=$(below_prefix "$LIBDIR")" \
        "INCLUDEDIR=$(below_prefix "$INCLUDEDIR")" >"$filled/psbus.pc"
    fill pkgconfig/psbusConfig.cmake.in "VERSION=$VERSION" "ABI=$abi" \
        "INCLUDEDIR=$(relative "$LIBDIR/cmake/psbus" "$INCLUDEDIR")" >"$filled/psbusConfig.cmake"
    fill pkgconfig/psbusConfigVersion.cmake.in "VERSION=$VERSION" "MAJOR=$major" "MINOR=$minor" "POINTER=$pointer" \
        >"$filled/psbusConfigVersion.cmake"
}

# The directories above a path, the nearest first.
parents() {
    above=${1%/*}
    while [ -n "$above" ]; do
        echo "$above"
        above=${above%/*}
    done
}

# Best effort: what cannot be remembered is installed all the same.
remember() {
    ( echo "$1" >>"$record" ) 2>/dev/null || true
}

make_directory() {
    if [ ! -d "$1" ]; then
        make_directory_above=${1%/*}
        [ -z "$make_directory_above" ] || ( make_directory "$make_directory_above" )
        install -d -m 755 "$1"
        remember "$1"
    fi
}

put() {
    if [ "$1" = file ]; then
        make_directory "$root${4%/*}"
        install -m "$2" "$3" "$root$4"
        remember "$root$4"
    else
        make_directory "$root${3%/*}"
        ln -sf "$2" "$root$3"
        remember "$root$3"
    fi
    count=$((count + 1))
}

# Whether the record knows a path.
recorded() {
    [ -r "$record" ] && grep -qFx -e "$1" "$record"
}

look_up() {
    [ "$1" = link ] || shift
    ! recorded "$root$3" || known=yes
}

# is_ours file SOURCE PATH, or link TARGET PATH.
is_ours() {
    case $1 in
    link) [ "$(readlink "$3")" = "$2" ];;
    file) [ "$known" = no ] || recorded "$3" || cmp -s "$2" "$3";;
    esac
}

drop() {
    kind=$1
    [ "$kind" = link ] || shift
    gone=$root$3
    if [ ! -e "$gone" ] && [ ! -L "$gone" ]; then
        :
    elif is_ours "$kind" "$2" "$gone"; then
        rm -f "$gone"
    else
        echo "uninstall: $gone stays: it is not what install put there"
    fi
    parents "$gone" >>"$filled/parents"
}

# Whether the loader is configured for LIBDIR, by whatever name; nothing is written.
loader_looks_there() {
    if command -v ldconfig >/dev/null 2>&1; then
        ldconfig -v -N -X 2>/dev/null | sed -n 's/^\(\/[^:]*\):.*/\1/p'
    else
        printf '%s\n' /lib /usr/local/lib /usr/lib
    fi >"$filled/loader"
    while IFS= read -r directory; do
        [ ! "$directory" -ef "$LIBDIR" ] || return 0
    done <"$filled/loader"
    return 1
}

# A program that was linked with the library must find it when it starts: what ldconfig can do for that is done, the rest told.
tell_loader() {
    # A user's PATH may lack ldconfig; and some systems, as those of musl, have none.
    PATH=$PATH:/usr/sbin:/sbin
    if ! loader_looks_there; then
        echo "install: the loader does not look in $LIBDIR: link with -Wl,-rpath,$LIBDIR or set LD_LIBRARY_PATH=$LIBDIR"
    elif command -v ldconfig >/dev/null 2>&1; then
        if [ "$(id -u)" != 0 ]; then
            echo "install: run ldconfig as root, so that the loader knows libpsbus.so.$abi"
        else
            ldconfig || echo "install: ldconfig failed; the loader may not know libpsbus.so.$abi" >&2
        fi
    fi
}

action=${1:-}
case $action in install|uninstall) ;; *) action=install.sh; die "usage: install.sh install|uninstall";; esac
for path in PREFIX BINDIR LIBDIR INCLUDEDIR MANDIR DATADIR; do
    eval "value=\$$path"
    case $value in
    /*) ;;
    *) die "$path='$value' is no absolute path";;
    esac
done
filled=$(mktemp -d) || exit 1
trap 'rm -rf "$filled"' EXIT
trap 'exit 1' INT TERM HUP
count=0

if [ "$action" = install ]; then
    fill_templates
    files put
    echo "install: $count files, below $root$PREFIX"
    [ -n "$root" ] || tell_loader
    exit 0
fi

# A record of other places says nothing about this one.
known=no
files look_up
: >"$filled/parents"
files drop
sort -u "$filled/parents" >"$filled/above"
# The folder is this package's own; of the others, those that install made.
echo "$root$LIBDIR/cmake/psbus" >"$filled/made"
[ ! -r "$record" ] || cat "$record" >>"$filled/made"
# Without a record nobody knows; the system's own directories stay, though they are empty.
case $root${PREFIX%/} in
''|/usr|/usr/local) known=yes;;
esac
if [ "$known" = no ]; then
    while IFS= read -r directory; do
        case $directory in
        "$root${PREFIX%/}"/*) echo "$directory" >>"$filled/made";;
        esac
    done <"$filled/above"
fi
# Children before parents. One that is not empty stays.
sort -u "$filled/made" | grep -Fx -f "$filled/above" | sort -r | while IFS= read -r directory; do
    [ ! -d "$directory" ] || rmdir "$directory" 2>/dev/null || true
done
if [ -r "$record" ]; then
    sort -u "$record" | while IFS= read -r path; do
        [ ! -e "$path" ] || echo "$path"
    done >"$filled/left"
    cp "$filled/left" "$record" 2>/dev/null || true
fi
