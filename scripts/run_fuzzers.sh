#!/bin/sh
# Runs every fuzzer on a copy of its corpus.
#
#     scripts/run_fuzzers.sh SECONDS JOBS
set -eu
seconds=$1
jobs=$2
sh scripts/configure.sh fuzz
cmake --build build/fuzz --parallel "$jobs"
for fuzzer in build/fuzz/bin/*_fuzz; do
    name=$(basename "$fuzzer" _fuzz)
    corpus="build/fuzz/corpus/$name"
    mkdir -p "$corpus"
    cp "tests/fuzz/corpus/$name/"* "$corpus/"
    echo "== $name"
    "$fuzzer" "$corpus" -max_total_time="$seconds" -rss_limit_mb=512 -malloc_limit_mb=256 -print_final_stats=1 -verbosity=0
done
