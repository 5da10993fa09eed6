#!/bin/sh
# Builds the Python wheel in build/wheels and tries it: its size, the libraries that it needs, and its tests in a virtual
# environment that has NumPy alone.
#
#     scripts/check_wheel.sh
set -eu
fail() {
    echo "check_wheel.sh: error: $1" >&2
    exit 1
}
wheels=build/wheels
clean=build/wheels/environment
rm -rf $wheels
python3 -m venv $clean
$clean/bin/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir $wheels . || fail "expected pip to build a wheel, found the errors above"
wheel=$(echo $wheels/*.whl)
bytes=$(stat -c %s "$wheel")
[ "$bytes" -lt 10000000 ] || fail "expected a wheel of less than 10 MB, found $bytes bytes"
$clean/bin/pip install --quiet --disable-pip-version-check "$wheel" pytest
package=$(cd / && "$OLDPWD/$clean/bin/python" -c "import attend, os; print(os.path.dirname(attend.__file__))")
for library in "$package"/*.so*; do
    others=$(ldd "$library" | grep -vE 'linux-vdso|ld-linux|/lib(c|m|stdc\+\+|gcc_s|pthread|dl|rt)\.so' | grep -v "$package" || true)
    [ -z "$others" ] || fail "expected $library to need the C and C++ libraries alone, found $others"
done
$clean/bin/python -m attend explain >/dev/null || fail "expected python -m attend to work, found that it does not"
# Beside PyTorch, which is loaded first as often as not, where the environment of the tests with it is at hand.
if [ -f build/python/torch.txt ]; then
    site=$(dirname "$package")
    for program in "import torch, attend.torch" "import attend, torch"; do
        PYTHONPATH=$site build/python/bin/python -c "$program" || fail "expected '$program' to work with $wheel, found that it does not"
    done
fi
# Those that need more say so by being skipped.
$clean/bin/python -m pytest -q -p no:cacheprovider --ignore=python/tests/torch --ignore=python/tests/onnx python/tests
echo "$wheel: $bytes bytes"
