#!/bin/sh
# Builds a preset and runs its tests, in the release preset those of the Python package too; the last line counts them:
# "N passed, N failed, N skipped".
#
#     scripts/run_tests.sh PRESET JOBS
set -eu
preset=$1
jobs=$2
# PyPI is slow, so it is asked while the rest is built.
if [ "$preset" = release ]; then
    sh scripts/make_python_environment.sh 2>/dev/null &
fi
# Benchmarks and examples call what the tests call; instrumented they would only take longer.
programs=ON
case $preset in *san*) programs=OFF ;; esac
sh scripts/configure.sh "$preset" -DATTEND_BUILD_TESTS=ON -DATTEND_BUILD_BENCHMARKS="$programs" \
    -DATTEND_BUILD_EXAMPLES="$programs" -DATTEND_BUILD_PYTHON=OFF
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
passed=$((total - failed - skipped))
if [ "$preset" = release ]; then
    wait
    python_log="build/$preset/python_count.log"
    sh scripts/run_python_tests.sh "$preset" "$jobs" >"$python_log" || status=$?
    sed '$d' "$python_log"
    # shellcheck disable=SC2046
    set -- $(tail -n 1 "$python_log" | tr -dc '0-9 ')
    if [ $# -ne 3 ]; then
        echo "run_tests.sh: error: expected the Python tests to end with their count, found $python_log" >&2
        exit 1
    fi
    echo "$passed of C++ and $1 of Python passed"
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
fi
echo "$passed passed, $failed failed, $skipped skipped"
exit "$status"
