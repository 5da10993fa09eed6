#!/bin/sh
# Cross-compiles the library, as a part of another project, and the tests of attention, linear attention and dense products for 64-bit Arm and
# runs them under qemu-user: NEON, and what differs on a processor without x86's instructions.
#
#     tests/neon/run.sh SOURCE BUILD
set -eu
source=$1
work="$2/neon"
cmake -S "$source/tests/install/subproject" -B "$work" -G Ninja -DATTEND_SOURCE_DIR="$source" \
    -DATTEND_BUILD_TESTS=ON -DCMAKE_BUILD_TYPE=Debug -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
    -DCMAKE_CROSSCOMPILING_EMULATOR="qemu-aarch64;-L;/usr/aarch64-linux-gnu" \
    -DCMAKE_CXX_FLAGS_DEBUG="-O1" -DCMAKE_CXX_FLAGS="-Wall -Wextra -Wpedantic -Wconversion -Werror" \
    -DATTEND_WITH_JSON=OFF -DATTEND_GTEST_SOURCE=/usr/src/googletest/googletest >"$work.log" 2>&1 ||
    { cat "$work.log" >&2; exit 1; }
cmake --build "$work" --target consumer test_attention test_dense
emulated() { qemu-aarch64 -L /usr/aarch64-linux-gnu "$@"; }
emulated "$work/bin/consumer"
# Emulation is slow: one case of each kind, and all semantics; plain loops are no others here. In two halves, for two cores.
attention='Algorithms/Semantics.*flash*:*Float32/everything:*Float32/plain:*Float32/causal_window:*SixteenBit/packed:*Float32/B2_H2_2_L33_35_D111_111:Isas/Decode.EveryOption/*:Isas/Decode.Int8*:Isas/Decode.Groups*:LinearAttentionOracle.EveryCombination:LinearAttentionOracle.OddSizes:LinearAttentionSemantics.TwoHalves*:LinearAttentionSemantics.Steps*:LinearAttentionSemantics.NanStays*-*scalar'
half() {
    export GTEST_TOTAL_SHARDS=2 GTEST_SHARD_INDEX="$1"
    emulated "$work/bin/test_attention" --gtest_brief=1 --gtest_filter="$attention" &&
        emulated "$work/bin/test_dense" --gtest_brief=1 --gtest_filter='-*scalar'
}
half 0 &
status=0
half 1 || status=1
wait $! || status=1
exit $status
