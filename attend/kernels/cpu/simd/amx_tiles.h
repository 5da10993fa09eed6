/// @file
/// The processor's tiles (Intel AMX): eight registers of 16 rows of 64 bytes. What the compilers' intrinsics lack is
/// that memory is read: without it stores of what a tile loads could come too late.
///
/// Layout here, in all kernels: sums are tiles 0 to 3, [row tile][column tile]; tiles 4 and 5 hold two row tiles, [16
/// rows][16 steps]; 6 and 7 two column tiles, [16 steps][16 columns]. A step is 4 bytes of depth: two bfloat16.
#pragma once

#include <cstdint>

namespace attend::kernels::cpu::simd {

namespace {

constexpr int kTileSide = 16;  ///< rows of a tile, and its steps or columns

/// All eight with 16 rows of 64 bytes, as ldtilecfg takes them.
struct alignas(64) TileShapes {
    std::uint8_t palette = 1;
    std::uint8_t start_row = 0;
    std::uint8_t reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

inline void shape_tiles() {
    static constexpr TileShapes kShapes;
    asm volatile("ldtilecfg %0" ::"m"(kShapes));
}

/// As they were: a thread that holds tiles has more to save when it is switched.
inline void release_tiles() {
    asm volatile("tilerelease" ::);
}

template <int kTile>
[[gnu::always_inline]] inline void zero_tile() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
}

/// Rows are `stride` bytes apart; 0: sixteen times the same.
template <int kTile>
[[gnu::always_inline]] inline void load_tile(const void* data, std::int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(data), "r"(stride), "i"(kTile) : "memory");
}

template <int kTile>
[[gnu::always_inline]] inline void store_tile(void* data, std::int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(data), "r"(stride), "i"(kTile) : "memory");
}

/// kSum += kRows kColumns: for each step the product of the first bfloat16 is added, then that of the second.
template <int kSum, int kRows, int kColumns>
[[gnu::always_inline]] inline void multiply_tiles() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kRows), "i"(kColumns));
}

}  // namespace

}  // namespace attend::kernels::cpu::simd
