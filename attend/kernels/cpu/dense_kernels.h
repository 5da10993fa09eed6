/// @file
/// The inner loops of dense products, one table of functions for each instruction set: a tile of rows of x times panels
/// of packed columns of W. The tile is attention's (tile_kernels.h): 12 rows by 2 vectors at most.
///
/// Operands are made of lanes of 32 bits, each with one float, two bfloat16 or four int8 that follow each other along
/// the depth (Format); a step is one lane deep:
///
///     rows       [row][step]             as matrices are, so that they can often be read in place
///     columns    [panel][step][32]       the same bytes on every instruction set: they can be stored and mapped
///     sums       [panel][12][32]         float; int32 for quads; of one panel [rows][32]
///
/// Every sum is one accumulator over the steps of a call, in order, whatever the tile, and is then added to what was
/// there (pairs on tiles of the processor begin with what was there, and take steps sixteen at a time): the same bits
/// for any number of rows, panels and threads.
#pragma once

#include <attend/kernels/cpu/isa.h>
#include <attend/kernels/cpu/tile_kernels.h>
#include <attend/kernels/dense.h>

#include <cstddef>
#include <cstdint>

namespace attend::kernels::cpu {

inline constexpr int kDenseColumns = 32;         ///< columns of a panel
inline constexpr int kDenseRows = 12;            ///< rows of a tile of vectors at most
inline constexpr int kDensePanels = 4;           ///< panels that one call takes at most
inline constexpr std::int64_t kLaneBytes = 4;    ///< of a step of one row or column
inline constexpr std::int64_t kStepBytes = 128;  ///< of a step of a panel
inline constexpr std::int64_t kSums =
    std::int64_t{kDenseRows} * kDenseColumns;  ///< of a panel and a tile of vectors, in lanes

/// Elements of a step: 1, 2 or 4.
constexpr std::int64_t lane_elements(Format format) {
    return format == Format::floats ? 1 : format == Format::pairs ? 2 : 4;
}

/// Operands of a kernel.
struct DenseArgs {
    const std::byte* rows = nullptr;     ///< first step of the first row
    std::int64_t row_stride = 0;         ///< bytes from one row to the next
    const std::byte* columns = nullptr;  ///< first step of the first panel
    std::int64_t panel_stride = 0;       ///< bytes from one panel to the next
    std::int64_t panels = 1;             ///< what the kernel was asked for with
    std::int64_t steps = 0;              ///< at least 1
    std::byte* sums = nullptr;           ///< see above
    std::int64_t fresh = 0;              ///< not 0: sums are written, not added to
    const std::byte* ahead = nullptr;    ///< columns that are wanted soon, see DenseKernels::kernel
    std::int64_t count = 0;              ///< rows, as the kernel was asked for with
};

using DenseKernel = void (*)(const DenseArgs*);  ///< see DenseArgs

/// From sums to numbers, y = activation(x W + bias) + residual, for one panel.
struct DenseFinish {
    const std::byte* sums = nullptr;            ///< [rows][32]
    const float* row_scales = nullptr;          ///< quads: [rows], what one step of x is worth
    const std::int32_t* row_offsets = nullptr;  ///< quads: [rows], taken from the sums: 128 times the sum of the row
    const float* column_scales = nullptr;       ///< quads: [32], what one step of W is worth
    const float* bias = nullptr;                ///< [32]; null: none
    Activation activation = Activation::none;   ///< of product and bias
    Rows residual = {};                         ///< of the shape of out; without data: none
    MutableRows out = {};                       ///< at most 32 wide
};

/// The functions of one instruction set and format.
struct DenseKernels {
    Format format = Format::floats;  ///< of the operands
    int rows = 0;                    ///< of a tile at most; tiles of more than 12 take one panel at a time
    /// Whether tiles of a product are whole but for the last one, since begin_rows() takes its time, and not of nearly
    /// the same size.
    bool whole_tiles = false;
    /// Rows of a tile from which it takes one panel at a time: they have sums enough, and a block of one panel, 32 KB,
    /// is what a first-level cache holds.
    int rows_of_one_panel = 7;
    /// Of a step of a row. Instruction sets that multiply bytes in 16 bits have rows of words, so that they are widened
    /// once and not in every tile: 8 bytes then, elements 0, 2, 1 and 3.
    std::int64_t row_lane_bytes = kLaneBytes;

    /// The kernel for `count` rows and some panels: below rows_of_one_panel up to 2 rows take 1, 2 or 4, others 1 or 2,
    /// since sums of few rows would wait for each other. Kernels for one panel of six rows and more (AVX-512) or of
    /// four and more (AVX2, but quads) ask for what is wanted soon: with `stream` for as many lines of `ahead` as they
    /// read, up to two panels, else for one line in four steps.
    DenseKernel (*kernel)(int count, int panels, bool stream) = nullptr;
    /// Before this thread calls kernels for another number of rows than before, 0 after the last one; null: nothing.
    void (*begin_rows)(int count) = nullptr;
    /// See DenseFinish.
    void (*finish)(const DenseFinish& args) = nullptr;
    /// Rows of elements to rows of lanes, rounded to the format; the last lane is filled up with 0. floats, pairs.
    void (*convert_rows)(const Rows& source, std::byte* out, std::int64_t stride) = nullptr;
    /// Rows to signed bytes: x / scale to nearest even, within [-127, 127]; the last lane is filled up with 0. The
    /// scale is given (in double: 1 / (1 / a) is a then, for any float a), or the row's largest magnitude / 127.
    /// scales[r] and offsets[r] go to DenseFinish; a row with numbers that are not finite gets scale NaN, one below
    /// 1e-36 counts as 0. quads.
    void (*quantize_rows)(const Rows& source, double given, std::byte* out, std::int64_t stride, float* scales,
                          std::int32_t* offsets) = nullptr;
    /// Rows of bytes, which lie in the second half of the row, to words; null where rows are bytes. quads.
    void (*widen_row)(std::byte* row, std::int64_t steps) = nullptr;
    /// out[step][32] = lanes of `count` rows, at most 32; the other columns are `filling`.
    void (*pack_panel)(const std::byte* rows, std::int64_t stride, std::int64_t count, std::int64_t steps,
                       std::uint32_t filling, std::byte* out) = nullptr;
};

/// The table for `format` on active_isa().
const DenseKernels& dense_kernels(Format format);

}  // namespace attend::kernels::cpu
