#!/bin/sh
# Configures a preset; what it prints is shown only when it fails.
#
#     scripts/configure.sh PRESET [-DNAME=VALUE]...
set -eu
preset=$1
shift
# ATTEND_BUILD_TESTS stays on once a tree has it: make demo after make test must not configure everything again.
case " $* " in
    *" -DATTEND_BUILD_TESTS=OFF "*)
        grep -qs '^ATTEND_BUILD_TESTS:BOOL=ON' "build/$preset/CMakeCache.txt" && set -- "$@" -DATTEND_BUILD_TESTS=ON ;;
esac
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cmake --preset "$preset" "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
