#!/bin/sh
# SPDX-License-Identifier: MIT
# test_install.sh - make install and make uninstall, and programs that are built against what was installed: through pkg-config
# and CMake, shared and static. Run by `make check`.
cd "$(dirname "$0")/.." || exit 1
. tests/script.sh

standard="-std=c11 ${PS_WARNINGS:--Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror}"
consumers=$(pwd)/tests/consumers
url=shm://install.$$
version=$(awk '/^#define PS_VERSION_(MAJOR|MINOR|PATCH) / { v = v dot $3; dot = "." } END { print v }' include/psbus.h)
major=${version%%.*}
abi=$major
[ "$major" != 0 ] || abi=${version%.*}

# install_to DESTDIR VARIABLE=…, and the same for uninstall. The record is this case's own.
install_to() {
    destdir=$1
    shift
    $PS_MAKE --no-print-directory install BUILD="$PS_BUILD" INSTALL_RECORD="$destdir.record" DESTDIR="$destdir" "$@"
}

uninstall_from() {
    destdir=$1
    shift
    $PS_MAKE --no-print-directory uninstall BUILD="$PS_BUILD" INSTALL_RECORD="$destdir.record" DESTDIR="$destdir" "$@"
}

# What is below a directory, a line each: kind, mode, name.
tree() {
    ( cd "$1" && find . ! -type l -printf '%y %m %p\n' -o -printf 'l %l %p\n' | sort -k 3 )
}

# Which libpsbus a program asks the loader for.
asks_for() {
    readelf -d "$1" | sed -n 's/.*NEEDED.*\[\(libpsbus[^]]*\)\].*/\1/p'
}

# prefix: an installation that programs are built against, made once for the cases that want one.
prefix() {
    [ -d "$scratch/prefix" ] || $PS_MAKE --no-print-directory install BUILD="$PS_BUILD" INSTALL_RECORD="$scratch/prefix.record" \
        DESTDIR= PREFIX="$scratch/prefix"
    PKG_CONFIG_PATH=$scratch/prefix/lib/pkgconfig
    export PKG_CONFIG_PATH
}

test_install_files_and_modes() {
    install_to "$scratch/files" PREFIX=/usr
    cat >"$scratch/expected" <<EOF
f 755 ./usr/bin/psbus
f 644 ./usr/include/psbus.h
f 644 ./usr/lib/cmake/psbus/psbusConfig.cmake
f 644 ./usr/lib/cmake/psbus/psbusConfigVersion.cmake
f 644 ./usr/lib/libpsbus.a
l libpsbus.so.$abi ./usr/lib/libpsbus.so
l libpsbus.so.$version ./usr/lib/libpsbus.so.$abi
f 755 ./usr/lib/libpsbus.so.$version
f 644 ./usr/lib/pkgconfig/psbus.pc
EOF
    # Pages and completions are compared with their sources below.
    tree "$scratch/files" | grep -v '^d' | grep -v ' ./usr/share/' >"$scratch/found"
    same "what was installed" "$scratch/expected" "$scratch/found"
    cmp include/psbus.h "$scratch/files/usr/include/psbus.h"
    ! tree "$scratch/files" | grep '^d' | grep -v '^d 755' || fail "a directory is not open to everybody"
    ! grep -rl -e "$scratch" -e '@[A-Z]*@' "$scratch/files/usr/include" "$scratch/files/usr/lib/cmake" \
        "$scratch/files/usr/lib/pkgconfig" ||
        fail "DESTDIR or an open @NAME@ is in an installed file"
    [ "$("$scratch/files/usr/bin/psbus" --version)" = "psbus $version" ]
}

# with_loader USER DIRECTORY LIBDIR DESTDIR: installs as a user with that number on a system whose loader looks in DIRECTORY;
# what was said is in $scratch/said, how ldconfig was called in $scratch/called. Nothing runs the real one.
with_loader() {
    mkdir -p "$scratch/fake"
    printf '#!/bin/sh\necho %s\n' "$1" >"$scratch/fake/id"
    cat >"$scratch/fake/ldconfig" <<EOF
#!/bin/sh
echo "ldconfig \$*" >>'$scratch/called'
case "\$*" in *-v*) printf '%s: (from /etc/ld.so.conf:1)\n\tlibx.so.1 -> libx.so.1.0\n' '$2';; esac
EOF
    chmod +x "$scratch/fake/id" "$scratch/fake/ldconfig"
    : >"$scratch/called"
    PATH=$scratch/fake:$PATH $PS_MAKE --no-print-directory install BUILD="$PS_BUILD" INSTALL_RECORD="$scratch/loader.record" \
        PREFIX="$scratch/loader" LIBDIR="$3" DESTDIR="$4" >"$scratch/said"
}

# says_of_loader PATTERN: one line about it; without a pattern, none.
says_of_loader() {
    grep '^install: ' "$scratch/said" | grep -v ' files, below ' >"$scratch/hints" || true
    if [ $# = 0 ]; then
        [ ! -s "$scratch/hints" ] || { cat "$scratch/hints"; fail "a hint for nothing"; }
    else
        grep -q -e "^install: .*$1" "$scratch/hints" || { cat "$scratch/said"; fail "not said: $1"; }
    fi
}

test_install_library_is_made_known_to_the_loader() {
    with_loader 0 "$scratch/loader/lib" "$scratch/loader/lib" ''
    says_of_loader
    grep -qx 'ldconfig *' "$scratch/called" || fail "ldconfig was not run"
    with_loader 1000 "$scratch/loader/lib" "$scratch/loader/lib" ''
    says_of_loader 'run ldconfig as root'
    ! grep -qx 'ldconfig *' "$scratch/called" || fail "ldconfig was run by a user"
    with_loader 0 "$scratch/loader/lib" "$scratch/loader/lib64" ''
    says_of_loader "the loader does not look in $scratch/loader/lib64"
    ! grep -qx 'ldconfig *' "$scratch/called" || fail "ldconfig was run for a directory it does not know"
    # A package is for another system.
    with_loader 0 "$scratch/loader/lib" "$scratch/loader/lib" "$scratch/package"
    says_of_loader
    [ ! -s "$scratch/called" ] || fail "the loader of this system was asked"
}

test_install_manual_pages() {
    install_to "$scratch/pages" PREFIX=/usr
    ls "$PS_BUILD/man" | sort >"$scratch/expected"
    [ -s "$scratch/expected" ] || fail "there are no pages"
    for section in 1 3 7; do
        ls "$scratch/pages/usr/share/man/man$section" | grep "\\.$section\$"
    done | sort >"$scratch/found"
    same "pages in the directories of their sections" "$scratch/expected" "$scratch/found"
}

test_install_completions() {
    install_to "$scratch/completions" PREFIX=/usr
    share=$scratch/completions/usr/share
    [ -e examples/psbus/psbus.bash ] || skip "there are no completions"
    cmp examples/psbus/psbus.bash "$share/bash-completion/completions/psbus"
    cmp examples/psbus/_psbus "$share/zsh/site-functions/_psbus"
}

test_install_uninstall_leaves_nothing() {
    mkdir "$scratch/nothing"
    install_to "$scratch/nothing" PREFIX=/usr
    uninstall_from "$scratch/nothing" PREFIX=/usr
    tree "$scratch/nothing" >"$scratch/found"
    printf 'd 755 .\n' >"$scratch/expected"
    same "what uninstall left" "$scratch/expected" "$scratch/found"
}

# The same when everything lies elsewhere, and twice in a row.
test_install_uninstall_other_directories_twice_leaves_nothing() {
    mkdir "$scratch/elsewhere"
    elsewhere="prefix=/opt/x libdir=/opt/x/lib/triplet includedir=/opt/include bindir=/b mandir=/m DATADIR=/d"
    for again in 1 2; do
        install_to "$scratch/elsewhere" $elsewhere
        install_to "$scratch/elsewhere" $elsewhere
        for file in b/psbus opt/include/psbus.h opt/x/lib/triplet/libpsbus.a; do
            [ -f "$scratch/elsewhere/$file" ] || fail "$file is missing ($again)"
        done
        uninstall_from "$scratch/elsewhere" $elsewhere
        tree "$scratch/elsewhere" >"$scratch/found"
        printf 'd 755 .\n' >"$scratch/expected"
        same "what uninstall left" "$scratch/expected" "$scratch/found"
    done
}

test_install_uninstall_keeps_what_others_made() {
    mkdir -p "$scratch/kept/usr/lib/pkgconfig" "$scratch/kept/usr/share/man/man3" "$scratch/kept/usr/bin"
    echo other >"$scratch/kept/usr/bin/other"
    tree "$scratch/kept" >"$scratch/expected"
    install_to "$scratch/kept" PREFIX=/usr
    echo other >"$scratch/kept/usr/include/other.h"
    uninstall_from "$scratch/kept" PREFIX=/usr
    [ -f "$scratch/kept/usr/include/other.h" ] || fail "a file of others is gone"
    rm -r "$scratch/kept/usr/include"
    tree "$scratch/kept" >"$scratch/found"
    same "what uninstall kept" "$scratch/expected" "$scratch/found"
}

# Without the record, as after `make clean` or from another clone: all but the prefix, which may be somebody's.
test_install_uninstall_without_record_leaves_the_prefix_alone() {
    mkdir "$scratch/lost"
    install_to "$scratch/lost" PREFIX=/usr/local
    rm "$scratch/lost.record"
    # Nor is anything built for it.
    $PS_MAKE --no-print-directory uninstall BUILD="$scratch/cleaned" DESTDIR="$scratch/lost" PREFIX=/usr/local
    [ ! -e "$scratch/cleaned/man" ] || fail "pages were built, to be uninstalled"
    tree "$scratch/lost" >"$scratch/found"
    printf 'd 755 %s\n' . ./usr ./usr/local >"$scratch/expected"
    same "what uninstall left" "$scratch/expected" "$scratch/found"
}

# By name they would be ours.
test_install_uninstall_keeps_files_it_did_not_install() {
    install_to "$scratch/others" PREFIX=/usr
    others=$scratch/others/usr
    ln -sf libpsbus.so.9 "$others/lib/libpsbus.so"
    grep -v '/bin/psbus$' "$scratch/others.record" >"$scratch/record" || true
    cp "$scratch/record" "$scratch/others.record"
    echo other >"$others/bin/psbus"
    uninstall_from "$scratch/others" PREFIX=/usr >"$scratch/said"
    [ "$(readlink "$others/lib/libpsbus.so")" = libpsbus.so.9 ] || fail "a link that leads elsewhere is gone"
    [ "$(cat "$others/bin/psbus")" = other ] || fail "a file of the same name is gone"
    [ "$(grep -c '^uninstall: .* stays' "$scratch/said")" = 2 ] || { cat "$scratch/said"; fail "what stays is not told"; }
    [ ! -e "$others/lib/libpsbus.a" ] || fail "a file that was installed is left"
}

test_install_relative_paths() {
    refuses "PREFIX='usr' is no absolute path" install_to "$scratch/relative" PREFIX=usr
    [ ! -e "$scratch/relative" ] || fail "something was installed"
    # A relative DESTDIR is below the directory where make runs.
    relative=$PS_BUILD/destdir.$$
    install_to "$relative" PREFIX=/
    [ -f "$relative/lib/libpsbus.a" ] || fail "nothing lies below the relative DESTDIR"
    uninstall_from "$relative" PREFIX=/
    rm -f "$relative.record"
    [ ! -e "$relative" ] || fail "uninstall left something below the relative DESTDIR"
}

test_install_pkg_config_shared() {
    need pkg-config readelf
    prefix
    [ "$(pkg-config --modversion psbus)" = "$version" ]
    $CC $standard "$consumers/linked.c" -o "$scratch/shared" $(pkg-config --cflags --libs psbus)
    [ "$(asks_for "$scratch/shared")" = "libpsbus.so.$abi" ] || fail "the program does not ask for the soname"
    LD_LIBRARY_PATH=$scratch/prefix/lib "$scratch/shared" inproc://shared "$url"
}

test_install_pkg_config_static() {
    need pkg-config readelf
    prefix
    echo 'int main(void) { return 0; }' >"$scratch/empty.c"
    $CC "$scratch/empty.c" -static -o "$scratch/empty" || skip "there is no static libc"
    $CC $standard "$consumers/linked.c" -static -o "$scratch/static" $(pkg-config --static --cflags --libs psbus)
    [ -z "$(asks_for "$scratch/static")" ] || fail "the program asks for the shared library"
    "$scratch/static" inproc://static "$url"
}

test_install_pkg_config_prefix_with_blanks() {
    need pkg-config
    blanks="$scratch/two words"
    $PS_MAKE --no-print-directory install BUILD="$PS_BUILD" INSTALL_RECORD="$scratch/blanks.record" DESTDIR= PREFIX="$blanks"
    flags=$(PKG_CONFIG_PATH=$blanks/lib/pkgconfig pkg-config --cflags --libs psbus)
    # They are quoted for a shell, as make has one.
    eval "$CC $standard '$consumers/linked.c' -o '$scratch/blanks' $flags"
    LD_LIBRARY_PATH=$blanks/lib "$scratch/blanks" inproc://blanks "$url"
}

# In a checkout of its own, should it be taken away.
test_install_clean_removes_the_build_directory_alone() {
    mkdir "$scratch/checkout" "$scratch/checkout/build"
    cp -R Makefile include lib "$scratch/checkout/"
    ln -s . "$scratch/checkout/here"
    for wrong in "$scratch/checkout" "$scratch" build/.. ./build/../../checkout here lib lib/ring "$scratch/checkout/include" \
        ./; do
        refuses 'is no directory of ours' $PS_MAKE --no-print-directory -C "$scratch/checkout" clean BUILD="$wrong"
        for kept in Makefile include/psbus.h lib/ring/ring.c build; do
            [ -e "$scratch/checkout/$kept" ] || fail "BUILD=$wrong: $kept is gone"
        done
    done
    $PS_MAKE --no-print-directory -C "$scratch/checkout" clean BUILD=build
    [ ! -e "$scratch/checkout/build" ] || fail "the build directory is left"
    $PS_MAKE --no-print-directory -C "$scratch/checkout" clean BUILD=build
    mkdir "$scratch/aside"
    $PS_MAKE --no-print-directory -C "$scratch/checkout" clean BUILD="$scratch/aside"
    [ ! -e "$scratch/aside" ] || fail "a build directory aside is left"
}

test_install_pkg_config_through_sysroot() {
    need pkg-config
    install_to "$scratch/sysroot" PREFIX=/usr LIBDIR=/usr/lib/triplet INCLUDEDIR=/usr/include/psbus
    root=$scratch/sysroot
    flags=$(PKG_CONFIG_SYSROOT_DIR=$root PKG_CONFIG_PATH=$root/usr/lib/triplet/pkgconfig pkg-config --cflags --libs psbus)
    $CC $standard "$consumers/linked.c" -o "$scratch/through" $flags
    LD_LIBRARY_PATH=$root/usr/lib/triplet "$scratch/through" "$url"
}

# As root it would make directories in a tree that is somebody else's.
test_install_builds_nothing_that_make_does_not() {
    for target in all install; do
        $PS_MAKE --no-print-directory -n "$target" BUILD="$scratch/unbuilt" | grep -v 'pkgconfig/install\.sh' | sort -u \
            >"$scratch/steps.$target"
    done
    [ -s "$scratch/steps.install" ] || fail "nothing would be built"
    comm -13 "$scratch/steps.all" "$scratch/steps.install" >"$scratch/found"
    [ ! -s "$scratch/found" ] || { cat "$scratch/found"; fail "install would build what make alone does not"; }
}

# Without the prefix the shared library would show nothing, and no step would fail.
test_install_map_has_the_prefix_however_it_is_given() {
    for flags in -DPS_PREFIX=acme_ '-D PS_PREFIX=acme_'; do
        $PS_MAKE --no-print-directory "$scratch/map/libpsbus.map" BUILD="$scratch/map" CPPFLAGS="$flags"
        [ "$(grep -c '^    acme_ps_' "$scratch/map/libpsbus.map")" -eq "$(wc -l <tests/exports.txt)" ] || fail "not with $flags"
    done
}

test_install_record_that_cannot_be_written() {
    $PS_MAKE --no-print-directory install BUILD="$PS_BUILD" INSTALL_RECORD="$scratch/nowhere/record" \
        DESTDIR="$scratch/unrecorded" PREFIX=/usr
    [ -f "$scratch/unrecorded/usr/bin/psbus" ] || fail "the tool is missing"
}

# cmake_project PREFIX NAME OPTION…
cmake_project() {
    need cmake
    cmake_prefix=$1 cmake_build=$scratch/$2
    shift 2
    cmake -S "$consumers" -B "$cmake_build" -DCMAKE_C_COMPILER="$CC" -DCMAKE_PREFIX_PATH="$cmake_prefix" "$@"
}

test_install_cmake_shared_and_static() {
    need cmake readelf
    prefix
    cmake_project "$scratch/prefix" cmake -DWANT="${version%.*}"
    MAKEFLAGS= cmake --build "$scratch/cmake"
    [ "$(asks_for "$scratch/cmake/linked_shared")" = "libpsbus.so.$abi" ]
    [ -z "$(asks_for "$scratch/cmake/linked_static")" ]
    "$scratch/cmake/linked_shared" inproc://cmake "$url"
    "$scratch/cmake/linked_static" inproc://cmake "$url"
}

test_install_cmake_moved_and_other_directories() {
    need cmake
    install_to "$scratch/before" PREFIX=/usr LIBDIR=/usr/lib/cmade INCLUDEDIR=/usr/include/deep/psbus
    mv "$scratch/before" "$scratch/after"
    cmake_project "$scratch/after/usr" moved -Dpsbus_DIR="$scratch/after/usr/lib/cmade/cmake/psbus"
    MAKEFLAGS= cmake --build "$scratch/moved"
    "$scratch/moved/linked_shared" "$url"
}

# /lib is a link to /usr/lib on most systems, and CMake may come that way.
test_install_cmake_through_merged_usr() {
    need cmake
    install_to "$scratch/merged" PREFIX=/usr
    ln -s usr/lib "$scratch/merged/lib"
    cmake_project "$scratch/merged" throughlink -Dpsbus_DIR="$scratch/merged/lib/cmake/psbus"
    MAKEFLAGS= cmake --build "$scratch/throughlink"
    "$scratch/throughlink/linked_shared" "$url"
}

test_install_cmake_versions() {
    need cmake
    prefix
    cmake -DFILE="$scratch/prefix/lib/cmake/psbus/psbusConfigVersion.cmake" -DVERSION="$version" -P tests/consumers/versions.cmake
    refuses 'not accepted' cmake_project "$scratch/prefix" newer -DWANT="$((major + 1)).0"
}

test_install_cmake_missing_library_is_told() {
    need cmake
    install_to "$scratch/half" PREFIX=/usr
    rm "$scratch/half/usr/lib/libpsbus.a"
    refuses 'psbus was installed with' cmake_project "$scratch/half/usr" halfbuild
    # A project that can do without goes on, and no variable of ours is left to it.
    mkdir "$scratch/optional"
    cat >"$scratch/optional/CMakeLists.txt" <<'EOF'
cmake_minimum_required(VERSION 3.13)
project(optional C)
find_package(psbus)
get_property(names DIRECTORY PROPERTY VARIABLES)
list(FILTER names INCLUDE REGEX "^_psbus")
if(psbus_FOUND OR TARGET psbus::psbus OR names)
    message(FATAL_ERROR "psbus_FOUND=${psbus_FOUND}, left: ${names}")
endif()
EOF
    cmake -S "$scratch/optional" -B "$scratch/without" -DCMAKE_C_COMPILER="$CC" -DCMAKE_PREFIX_PATH="$scratch/half/usr"
}

script_begin
script_case test_install_files_and_modes test_install_library_is_made_known_to_the_loader test_install_manual_pages \
    test_install_completions \
    test_install_uninstall_leaves_nothing \
    test_install_uninstall_other_directories_twice_leaves_nothing test_install_uninstall_keeps_what_others_made \
    test_install_uninstall_without_record_leaves_the_prefix_alone test_install_uninstall_keeps_files_it_did_not_install \
    test_install_relative_paths test_install_builds_nothing_that_make_does_not \
    test_install_map_has_the_prefix_however_it_is_given test_install_record_that_cannot_be_written \
    test_install_pkg_config_shared test_install_pkg_config_static test_install_pkg_config_prefix_with_blanks \
    test_install_pkg_config_through_sysroot test_install_clean_removes_the_build_directory_alone \
    test_install_cmake_shared_and_static test_install_cmake_moved_and_other_directories \
    test_install_cmake_through_merged_usr test_install_cmake_versions \
    test_install_cmake_missing_library_is_told
script_end
