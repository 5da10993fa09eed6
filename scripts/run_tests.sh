#!/bin/sh
# Builds a preset and runs its tests; the last line counts them: "N passed, N failed".
#
#     scripts/run_tests.sh PRESET JOBS
set -eu
preset=$1
jobs=$2
sh scripts/configure.sh "$preset" -DATTEND_BUILD_TESTS=ON -DATTEND_BUILD_BENCHMARKS=ON
cmake --build "build/$preset" --parallel "$jobs"
log="build/$preset/tests.log"
LSAN_OPTIONS="suppressions=$PWD/scripts/lsan_suppressions.txt:print_suppressions=0"
TSAN_OPTIONS="suppressions=$PWD/scripts/tsan_suppressions.txt"
export LSAN_OPTIONS TSAN_OPTIONS
status=0
ctest --test-dir "build/$preset" --parallel "$jobs" --output-on-failure --no-tests=error >"$log" 2>&1 || status=$?
if [ "$status" -ne 0 ]; then
    grep -v ' Passed ' "$log" >&2 || true
fi
skipped=$(grep -c '\*\*\*Skipped' "$log" || true)
failed=$(sed -n 's/.*tests passed, \([0-9]*\) tests failed out of \([0-9]*\).*/\1/p' "$log")
total=$(sed -n 's/.*tests passed, \([0-9]*\) tests failed out of \([0-9]*\).*/\2/p' "$log")
if [ -z "$total" ]; then
    echo "run_tests.sh: error: expected ctest to count its tests, found no count in $log" >&2
    exit 1
fi
[ "$skipped" -eq 0 ] || grep '\*\*\*Skipped' "$log"
echo "$((total - failed - skipped)) passed, $failed failed, $skipped skipped"
exit "$status"
