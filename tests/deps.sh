#!/bin/sh
# SPDX-License-Identifier: MIT
# deps.sh - install cmocka through the system's package manager, unless a program that uses it can be built already.
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
        echo "deps: installing cmocka needs root, and there is no sudo" >&2
        return 1
    fi
}

if ! have_compiler; then
    echo "deps: the C compiler '$cc' cannot build a program:" >&2
    cat "$dir/log" >&2
    exit 1
fi
if have_cmocka; then
    echo "deps: cmocka is there"
    exit 0
fi

echo "deps: installing cmocka"
if command -v apt-get >/dev/null 2>&1; then
    # A failed update of one of several lists need not matter; the install and the probe after it decide.
    as_root apt-get -q update </dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install libcmocka-dev </dev/null
elif command -v dnf >/dev/null 2>&1; then
    as_root dnf -y install libcmocka-devel </dev/null
elif command -v apk >/dev/null 2>&1; then
    as_root apk add cmocka-dev </dev/null
elif command -v pacman >/dev/null 2>&1; then
    as_root pacman -Sy --noconfirm --needed cmocka </dev/null
elif command -v brew >/dev/null 2>&1; then
    brew install cmocka </dev/null
else
    echo "deps: no package manager that is known here (apt-get, dnf, apk, pacman, brew); install cmocka by hand" >&2
    exit 1
fi

if ! have_cmocka; then
    echo "deps: cmocka still cannot be used:" >&2
    cat "$dir/log" >&2
    exit 1
fi
echo "deps: cmocka is there"
