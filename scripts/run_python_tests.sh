#!/bin/sh
# Builds the Python extension in the tree of a preset and runs its tests; the last line counts them: "N passed, N failed,
# N skipped". Without PyPI there are none; without PyTorch those of python/tests/torch are left out: both are said.
#
#     scripts/run_python_tests.sh PRESET JOBS
set -eu
preset=$1
jobs=$2
environment=build/python
functions() {  # of tests in a folder; those with parameters count once
    grep -rhE '^ *(async )?def test_' --include='*.py' "$1" | wc -l
}
if ! sh scripts/make_python_environment.sh; then
    echo "The Python package's tests are left out."
    echo "0 passed, 0 failed, $(functions python/tests) skipped"
    exit 0
fi
left_out=""
skipped=0
if [ ! -f $environment/torch.txt ]; then
    echo "The Python package's tests with PyTorch are left out."
    left_out="--ignore=python/tests/torch"
    skipped=$(functions python/tests/torch)
fi
sh scripts/configure.sh "$preset" -DATTEND_BUILD_PYTHON=ON -DPython_EXECUTABLE="$PWD/$environment/bin/python"
cmake --build "build/$preset" --parallel "$jobs" --target attend_python
log="build/$preset/python_tests.log"
status=0
# shellcheck disable=SC2086
PYTHONPATH="$PWD/build/$preset/python" $environment/bin/python -m pytest -q -rs -p no:cacheprovider $left_out python/tests \
    >"$log" 2>&1 || status=$?
[ "$status" -eq 0 ] || cat "$log" >&2
grep '^SKIPPED' "$log" || true
count() {
    number=$(tail -n 1 "$log" | grep -oE "[0-9]+ $1" || true)
    echo "${number%% *}" | sed 's/^$/0/'
}
if [ "$(count passed)" -eq 0 ]; then
    echo "run_python_tests.sh: error: expected pytest to count its tests, found no count in $log" >&2
    exit 1
fi
echo "$(count passed) passed, $(($(count failed) + $(count error))) failed, $(($(count skipped) + skipped)) skipped"
exit "$status"
