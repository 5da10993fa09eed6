#!/bin/sh
# The API reference; every warning is an error.
set -eu
mkdir -p build/docs
version=$(sed -n 's/.*define ATTEND_VERSION "\(.*\)"/\1/p' attend/version.h)
(cat docs/Doxyfile; echo "PROJECT_NUMBER = $version") | doxygen - >build/docs/doxygen.log 2>build/docs/warnings.log || {
    cat build/docs/warnings.log >&2
    exit 1
}
if [ -s build/docs/warnings.log ]; then
    cat build/docs/warnings.log >&2
    exit 1
fi
echo "build/docs/html/index.html"
