#!/bin/sh
# SPDX-License-Identifier: MIT
# deps.sh - install what the tests need through the system's package manager, if it is missing: cmocka, without which there are
# no tests, and the tools of the tests of what is shipped (pkg-config, cmake, mandoc, a C++ compiler, clang, valgrind). Tests
# whose tool cannot be had are skipped, and say so.
set -u

cc=${CC:-cc}
flags=${CFLAGS:-}
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

# $cc and $flags are split into words on purpose.
builds() {
    $cc $flags "$@" -o "$dir/probe" >"$dir/log" 2>&1
}

have_compiler() {
    printf '#include <pthread.h>\nint main(void) { return 0; }\n' >"$dir/plain.c"
    builds "$dir/plain.c" -pthread
}

have_cmocka() {
    cat >"$dir/cmocka.c" <<'PROBE'
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
static void test_nothing(void **state) { (void)state; }
int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_nothing) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
PROBE
    builds $(pkg-config --cflags cmocka 2>/dev/null) "$dir/cmocka.c" \
        $(pkg-config --libs cmocka 2>/dev/null || echo -lcmocka) && "$dir/probe" >/dev/null 2>&1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        echo "deps: installing needs root, and there is no sudo" >&2
        return 1
    fi
}

if ! have_compiler; then
    echo "deps: the C compiler '$cc' cannot build a program:" >&2
    cat "$dir/log" >&2
    exit 1
fi
# A line for each thing that is missing.
missing() {
    have_cmocka || echo cmocka
    for tool in pkg-config cmake mandoc clang valgrind; do
        command -v "$tool" >/dev/null 2>&1 || echo "$tool"
    done
    command -v "${CXX:-c++}" >/dev/null 2>&1 || echo c++
}

# The package that has a thing, for one package manager: package THING CMOCKA PKG-CONFIG C++
package() {
    case $1 in
    cmocka)     echo "$2";;
    pkg-config) echo "$3";;
    c++)        echo "$4";;
    *)          echo "$1";;
    esac
}

# install_with NAMES COMMAND…: NAMES are the three that differ. First all at once; if that fails, one by one, so that a package
# that is not to be had does not keep the others away.
install_with() {
    names=$1
    shift
    packages=
    for thing in $wanted; do
        packages="$packages $(package "$thing" $names)"
    done
    as_root "$@" $packages </dev/null && return
    for one in $packages; do
        as_root "$@" "$one" </dev/null
    done
}

wanted=$(missing)
if [ -z "$wanted" ]; then
    echo "deps: everything is there"
    exit 0
fi

echo "deps: installing" $wanted
if command -v apt-get >/dev/null 2>&1; then
    # A failed update of one of several lists need not matter; the install and the look after it decide.
    as_root apt-get -q update </dev/null
    install_with "libcmocka-dev pkg-config g++" env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install
elif command -v dnf >/dev/null 2>&1; then
    install_with "libcmocka-devel pkgconf-pkg-config gcc-c++" dnf -y install
elif command -v apk >/dev/null 2>&1; then
    install_with "cmocka-dev pkgconf g++" apk add
elif command -v pacman >/dev/null 2>&1; then
    install_with "cmocka pkgconf gcc" pacman -Sy --noconfirm --needed
else
    echo "deps: no package manager that is known here (apt-get, dnf, apk, pacman); install by hand:" $wanted >&2
fi

if ! have_cmocka; then
    echo "deps: cmocka still cannot be used:" >&2
    cat "$dir/log" >&2
    exit 1
fi
wanted=$(missing)
if [ -z "$wanted" ]; then
    echo "deps: everything is there"
else
    echo "deps: still missing, so some tests are skipped:" $wanted
fi
