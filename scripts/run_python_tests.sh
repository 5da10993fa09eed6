#!/bin/sh
# Builds the Python extension in the tree of a preset and runs its tests; the last line is pytest's count.
#
#     scripts/run_python_tests.sh PRESET JOBS
#
# The virtual environment build/python holds nanobind, NumPy, pytest and PyTorch (for python/tests/torch; without it, as
# where PyPI has none, the rest runs).
set -eu
preset=$1
jobs=$2
environment=build/python
packages="nanobind==3.1.0 numpy pytest==9.2.0 torch==2.13.0"
if [ "$(cat $environment/packages 2>/dev/null || true)" != "$packages" ]; then
    rm -rf $environment
    python3 -m venv $environment
    # shellcheck disable=SC2086
    $environment/bin/pip install --quiet --disable-pip-version-check --extra-index-url https://download.pytorch.org/whl/cpu \
        $packages
    echo "$packages" >$environment/packages
fi
sh scripts/configure.sh "$preset" -DATTEND_BUILD_PYTHON=ON -DPython_EXECUTABLE="$PWD/$environment/bin/python"
cmake --build "build/$preset" --parallel "$jobs" --target attend_python
PYTHONPATH="$PWD/build/$preset/python" exec $environment/bin/python -m pytest -q -p no:cacheprovider python/tests
