#!/bin/sh
# SPDX-License-Identifier: MIT
# deps.sh NAME PACKAGE… - install what a benchmark can use and does not need: Debian packages, each by itself, so that one
# that a release lacks costs only itself.
set -u
name=$1
shift

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null 2>&1; then sudo "$@"; else return 1; fi
}
have() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'; }

if ! command -v apt-get >/dev/null 2>&1 || ! command -v dpkg-query >/dev/null 2>&1; then
    echo "$name: only Debian's packages are known here; install by hand: $*" >&2
    exit 1
fi
missing=
for package; do have "$package" || missing="$missing $package"; done
[ -z "$missing" ] || as_root apt-get -q update </dev/null
failed=0
for package in $missing; do
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends install "$package" </dev/null
    have "$package" || failed=1
done
for package; do
    if have "$package"; then echo "$name: $package is there"; else echo "$name: $package could not be installed" >&2; fi
done
exit $failed
