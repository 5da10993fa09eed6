/// @file
/// The processor's tiles (Intel AMX): eight registers of 16 rows of 64 bytes. What the compilers' intrinsics lack is
/// that memory is read: without it stores of what a tile loads could come too late.
///
/// Layout here, in all kernels: sums are tiles 0 to 3, [row tile][column tile]; tiles 4 and 5 hold two row tiles, [16
/// rows][16 steps]; 6 and 7 two column tiles, [16 steps][16 columns]. A step is 4 bytes of depth: two bfloat16.
#pragma once

#include <attend/kernels/cpu/tile_kernels.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>

namespace attend::kernels::cpu::simd {

inline constexpr int kTileSide = 16;            ///< rows of a tile, and its steps or columns
inline constexpr std::int64_t kTileBytes = 64;  ///< of a row

namespace {

/// All eight with 16 rows of 64 bytes, as ldtilecfg takes them, which needs a tenth of a microsecond.
struct alignas(64) TileShapes {
    std::uint8_t palette = 1;
    std::uint8_t start_row = 0;
    std::uint8_t reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

/// Those of a product of `count` rows, at most 32: none are read or written behind the last.
inline TileShapes shapes_of_rows(int count) {
    const auto first = static_cast<std::uint8_t>(std::min(count, kTileSide));
    const auto second = static_cast<std::uint8_t>(std::max(count - kTileSide, 1));
    TileShapes shapes;
    const std::uint8_t rows[] = {first, first, second, second, first, second};
    std::copy(std::begin(rows), std::end(rows), shapes.rows);
    return shapes;
}

inline void shape_tiles(const TileShapes& shapes) {
    asm volatile("ldtilecfg %0" ::"m"(shapes));
}

/// As before: a thread that holds tiles has more to save when it is switched.
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

/// What a step of rows and of columns is.
enum class TileNumbers : std::uint8_t {
    pairs,               ///< two bfloat16
    signed_by_unsigned,  ///< four bytes: those of rows signed, those of columns unsigned
    unsigned_by_signed,  ///< four bytes
    signed_by_signed,    ///< four bytes
};

/// kSum += kRows kColumns. Two bfloat16 a step: the first ones of the 16 steps are summed, and the second ones, both in
/// order, and the sum of the two is added. Four bytes: exact.
template <TileNumbers kNumbers, int kSum, int kRows, int kColumns>
[[gnu::always_inline]] inline void multiply_tiles() {
    if constexpr (kNumbers == TileNumbers::pairs) {
        asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kRows), "i"(kColumns));
    } else if constexpr (kNumbers == TileNumbers::signed_by_unsigned) {
        asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kRows), "i"(kColumns));
    } else if constexpr (kNumbers == TileNumbers::unsigned_by_signed) {
        asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kRows), "i"(kColumns));
    } else {
        asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kRows), "i"(kColumns));
    }
}

// A product of one or two row tiles and two column tiles.

inline void zero_sums() {
    zero_tile<0>();
    zero_tile<1>();
    zero_tile<2>();
    zero_tile<3>();
}

/// The sums begin with what is there. @param stride 0: the same for all rows
template <int kRowTiles>
[[gnu::always_inline]] inline void load_sums(const std::byte* from, std::int64_t stride) {
    load_tile<0>(from, stride);
    load_tile<1>(from + kTileBytes, stride);
    if constexpr (kRowTiles == 2) {
        load_tile<2>(from + kTileSide * stride, stride);
        load_tile<3>(from + kTileSide * stride + kTileBytes, stride);
    }
}

template <int kRowTiles>
[[gnu::always_inline]] inline void store_sums(std::byte* out, std::int64_t stride) {
    store_tile<0>(out, stride);
    store_tile<1>(out + kTileBytes, stride);
    if constexpr (kRowTiles == 2) {
        store_tile<2>(out + kTileSide * stride, stride);
        store_tile<3>(out + kTileSide * stride + kTileBytes, stride);
    }
}

/// Sums += rows columns over 16 steps. @param turn called between the multiplications, twice for each row tile
template <TileNumbers kNumbers, int kRowTiles, typename Turn>
[[gnu::always_inline]] inline void multiply_step(const std::byte* rows, std::int64_t row_stride,
                                                 const std::byte* columns, std::int64_t column_stride,
                                                 const Turn& turn) {
    load_tile<4>(rows, row_stride);
    load_tile<6>(columns, column_stride);
    multiply_tiles<kNumbers, 0, 4, 6>();
    load_tile<7>(columns + kTileBytes, column_stride);
    turn();
    multiply_tiles<kNumbers, 1, 4, 7>();
    if constexpr (kRowTiles == 2) {
        load_tile<5>(rows + kTileSide * row_stride, row_stride);
        turn();
        multiply_tiles<kNumbers, 2, 5, 6>();
        turn();
        multiply_tiles<kNumbers, 3, 5, 7>();
    }
    turn();
}

}  // namespace

}  // namespace attend::kernels::cpu::simd
