// Dense products on the processor's tiles: 32 rows x one panel are four tiles of sums, and 16 steps of depth (32
// bfloat16, 64 bytes) two tiles of rows and two of columns, which are rows and packed columns as they lie. A tile of
// rows has as many as there are, so none are read behind the last. Cost: for 16 steps twice as many cycles as there are
// rows, and loads of two tiles of rows and two of columns.

#include <attend/kernels/cpu/simd/dense_tables.h>
//
#include <attend/kernels/cpu/simd/amx_tiles.h>

#include <algorithm>
#include <cstring>

namespace attend::kernels::cpu::simd {

namespace {

constexpr int kRows = 2 * kTileSide;
constexpr std::int64_t kDepthBytes = kTileSide * kLaneBytes;   // of a row of a tile
constexpr std::int64_t kColumnBytes = kTileSide * kStepBytes;  // of two tiles of columns
constexpr std::int64_t kLine = 64;
constexpr int kBytesFromRows = 8;  // of quads: 8 take 5.9 to 8.6 us here, in vectors 8.5 to 8.9 (512 x 512)

/// What rows and packed columns of a format are.
constexpr TileNumbers numbers_of(Format format) {
    return format == Format::pairs ? TileNumbers::pairs : TileNumbers::signed_by_unsigned;
}

/// The last steps of a depth, fewer than a tile has: what lies behind them, in rows and in columns, is something else.
template <Format kFormat, int kRowTiles>
void multiply_rest(const std::byte* rows, std::int64_t row_stride, std::int64_t count, const std::byte* columns,
                   std::int64_t steps) {
    alignas(64) std::byte some_rows[kRows * kDepthBytes] = {};
    alignas(64) std::byte some_columns[kColumnBytes] = {};
    for (std::int64_t r = 0; r < count; ++r) {
        std::memcpy(some_rows + r * kDepthBytes, rows + r * row_stride, static_cast<std::size_t>(steps * kLaneBytes));
    }
    std::memcpy(some_columns, columns, static_cast<std::size_t>(steps * kStepBytes));
    multiply_step<numbers_of(kFormat), kRowTiles>(some_rows, kDepthBytes, some_columns, kStepBytes, [] {});
}

template <Format kFormat, int kRowTiles, bool kStream>
void tile(const DenseArgs* args) {
    const std::byte* rows = args->rows;
    const std::byte* columns = args->columns;
    const std::byte* ahead = args->ahead;
    if (args->fresh != 0) {
        zero_sums();
    } else {
        load_sums<kRowTiles>(args->sums, kStepBytes);
    }
    std::int64_t left = args->steps;
    for (; left >= kTileSide; left -= kTileSide) {
        constexpr std::int64_t kAsked = kStream ? kColumnBytes / kLine : kTileSide / 4;
        for (std::int64_t line = 0; line < kAsked; ++line) __builtin_prefetch(ahead + line * kLine, 0, 2);
        ahead += kAsked * kLine;
        multiply_step<numbers_of(kFormat), kRowTiles>(rows, args->row_stride, columns, kStepBytes, [] {});
        rows += kDepthBytes;
        columns += kColumnBytes;
    }
    if (left > 0) multiply_rest<kFormat, kRowTiles>(rows, args->row_stride, args->count, columns, left);
    store_sums<kRowTiles>(args->sums, kStepBytes);
}

template <Format kFormat>
DenseKernel tile_of(int count, bool stream) {
    if (count <= kTileSide) return stream ? tile<kFormat, 1, true> : tile<kFormat, 1, false>;
    return stream ? tile<kFormat, 2, true> : tile<kFormat, 2, false>;
}

/// Tiles of as many rows; see amx_tiles.h for which is which.
void begin_rows(int count) {
    if (count == 0) {
        release_tiles();
        return;
    }
    shape_tiles(shapes_of_rows(count));
}

DenseKernel find_bytes(int count, int panels, bool stream) {
    if (count >= kBytesFromRows) return tile_of<Format::quads>(count, stream);
    return choose_dense(Isa::avx512_bf16, Format::quads).kernel(count, panels, stream);
}

void begin_rows_of_bytes(int count) {
    if (count == 0 || count >= kBytesFromRows) begin_rows(count);
}

}  // namespace

DenseKernels dense_amx(const DenseKernels& vectors) {
    DenseKernels table = vectors;
    table.rows = kRows;
    table.whole_tiles = true;
    if (vectors.format == Format::pairs) {
        table.rows_of_one_panel = 1;
        table.kernel = [](int count, int, bool stream) { return tile_of<Format::pairs>(count, stream); };
        table.begin_rows = begin_rows;
    } else {
        table.kernel = find_bytes;
        table.begin_rows = begin_rows_of_bytes;
    }
    return table;
}

}  // namespace attend::kernels::cpu::simd
