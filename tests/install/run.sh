#!/bin/sh
# Uses attend from outside: the installed package, pkg-config, and add_subdirectory (which tests/neon builds and runs, where
# it can, so that here only its targets are looked at).
#
#     tests/install/run.sh package|pkg-config|subproject|subproject-targets SOURCE BUILD COMPILER DRAWING(0|1)
set -eu
way=$1
source=$2
build=$3
compiler=$4
drawing=$5
work="$build/install-test/$way"
rm -rf "$work"
mkdir -p "$work"
case "$way" in
    package | pkg-config)
        cmake --install "$build" --prefix "$work/prefix" >"$work/install.log"
        # A tree that was moved after its installation must still be found.
        mv "$work/prefix" "$work/moved"
        ;;
esac
case "$way" in
    package)
        cmake -S "$source/tests/install/consumer" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/moved" \
            -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Release
        cmake --build "$work/build"
        "$work/build/consumer"
        "$work/build/consumer_viz" "$drawing"
        "$work/build/consumer_models"
        # Without the drawing libraries' development files a program that does not draw still builds.
        PKG_CONFIG_LIBDIR=/nonexistent cmake -S "$source/tests/install/consumer" -B "$work/plain" \
            -DCMAKE_PREFIX_PATH="$work/moved" -DCMAKE_CXX_COMPILER="$compiler" -DWITHOUT_VIZ=ON
        cmake --build "$work/plain"
        "$work/plain/consumer"
        "$work/moved/bin/attend" --version
        ;;
    pkg-config)
        PKG_CONFIG_PATH=$(dirname "$(find "$work/moved" -name attend.pc)")
        export PKG_CONFIG_PATH
        "$compiler" -std=c++20 "$source/tests/install/main.cc" -o "$work/consumer" $(pkg-config --cflags --libs --static attend)
        "$work/consumer"
        "$compiler" -std=c++20 "$source/tests/install/viz.cc" -o "$work/consumer_viz" \
            $(pkg-config --cflags --libs attend-viz)
        "$work/consumer_viz" "$drawing"
        "$compiler" -std=c++20 "$source/tests/install/models.cc" -o "$work/consumer_models" \
            $(pkg-config --cflags --libs --static attend-models)
        "$work/consumer_models"
        ;;
    subproject | subproject-targets)
        cmake -S "$source/tests/install/subproject" -B "$work/build" -DATTEND_SOURCE_DIR="$source" \
            -G Ninja -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG=-O0
        [ "$way" = subproject ] || exit 0
        cmake --build "$work/build" --target consumer
        "$work/build/bin/consumer"
        ;;
esac
