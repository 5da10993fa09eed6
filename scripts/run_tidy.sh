#!/bin/sh
# clang-tidy over the sources of the library, the command and the examples, by the clang preset's compile commands.
#
#     scripts/run_tidy.sh JOBS [FILE]...
set -eu
jobs=$1
shift
sh scripts/configure.sh clang -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON
[ $# -gt 0 ] || set -- $(git ls-files 'attend/*.cc' 'apps/*.cc' 'examples/*.cc' | grep -v '/no_')
printf '%s\n' "$@" | xargs -P "$jobs" -n 1 clang-tidy-14 -p build/clang --quiet --warnings-as-errors='*' 2>build/clang/tidy.log
