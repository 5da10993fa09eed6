#!/bin/sh
# Makes the virtual environment build/python for the Python package's tests: what python/tests needs, and what
# python/tests/torch needs besides (build/python/torch.txt is there when it has). Quick when nothing has changed.
#
#     scripts/make_python_environment.sh
set -eu
environment=build/python
fill() { # NAME REQUIREMENTS
    cmp -s "$2" "$environment/$1.txt" && return 0
    rm -f "$environment/$1.txt"
    if "$environment/bin/pip" install --quiet --disable-pip-version-check --retries 1 --timeout 20 -r "$2" >"$environment/$1.log" 2>&1; then
        cp "$2" "$environment/$1.txt"
    else
        echo "make_python_environment.sh: PyPI did not give what $2 names: $(tail -n 1 "$environment/$1.log")" >&2
        return 1
    fi
}
[ -x "$environment/bin/python" ] || python3 -m venv "$environment"
fill base python/tests/requirements.txt
fill torch python/tests/torch/requirements.txt || true
