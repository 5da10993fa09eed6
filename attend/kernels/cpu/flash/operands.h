/// @file
/// Rows of the problem's tensors as the tile kernels take them.
#pragma once

#include <attend/core/divide.h>
#include <attend/kernels/attention.h>
#include <attend/kernels/cpu/flash/tile_choice.h>
#include <attend/kernels/cpu/tile_kernels.h>

#include <cmath>
#include <cstddef>
#include <cstdint>

namespace attend::kernels::cpu::flash {

/// Rows [begin, begin + count) of a batch and head, counted in the whole tensor.
inline Rows rows_of(const TensorView& view, std::int64_t batch, std::int64_t head, std::int64_t begin,
                    std::int64_t count) {
    return {row_address(view, batch, head, begin), view.dtype(), view.strides()[2], count, view.shape()[3]};
}

/// Steps that `width` numbers take.
inline std::int64_t steps_of(const TileKernels& kernels, std::int64_t width) {
    switch (kernels.format) {
        case Format::pairs:
            return divide_up(width, 2);
        case Format::thirds:
            return kThirds * divide_up(width, 2);
        default:
            return width;
    }
}

/// Depth of packed operands of `width` numbers.
inline std::int64_t depth_of(const TileKernels& kernels, std::int64_t width) {
    return divide_up(steps_of(kernels, width), kernels.depth_steps) * kernels.depth_steps;
}

/// Where one number is among packed pairs: `half` of the pair of each of the steps step, step + part_steps, ..., of
/// which there are `parts` (3 in thirds), whose bfloat16 sum to it.
struct PlaceInPairs {
    std::int64_t step = 0;        ///< the first
    std::int64_t half = 0;        ///< 0 or 1
    std::int64_t parts = 1;       ///< how many
    std::int64_t part_steps = 0;  ///< steps of a part of a panel
};

/// Of number k in pairs or thirds.
inline PlaceInPairs place_in_pairs(const TileKernels& kernels, std::int64_t k) {
    if (kernels.format == Format::pairs) return {k / 2, k % 2, 1, kernels.step_columns};
    const std::int64_t steps = kernels.step_columns / kThirds;
    return {k / (2 * steps) * kernels.step_columns + k % steps, k / steps % 2, kThirds, steps};
}

/// One of the rows.
inline Rows row_of(const Rows& rows, std::int64_t row) {
    const std::int64_t bytes = row * rows.stride * static_cast<std::int64_t>(size_of(rows.dtype));
    return {static_cast<const std::byte*>(rows.data) + bytes, rows.dtype, rows.stride, 1, rows.width};
}

/// A bit for each row with infinity and no NaN, where operands are split into thirds: infinity has no rest, so that its
/// products would be NaN. Those of NaN are in any case. @param rows as many as a tile's or a panel's
inline std::uint32_t infinite_rows(const TileKernels& kernels, const Rows& rows) {
    if (kernels.format != Format::thirds || kernels.all_finite(rows)) return 0;
    std::uint32_t infinite = 0;
    for (std::int64_t r = 0; r < rows.count; ++r) {
        const Rows row = row_of(rows, r);
        float square = 0.0F;
        kernels.row_products(row, row, &square);
        if (!kernels.all_finite(row) && !std::isnan(square)) infinite |= 1U << static_cast<unsigned>(r);
    }
    return infinite;
}

/// Rows where a product reads its steps, and how far apart they are.
struct Steps {
    const float* data = nullptr;  ///< the first
    std::int64_t stride = 0;      ///< bytes

    /// The address of a step.
    const float* at(std::int64_t step) const {
        return reinterpret_cast<const float*>(reinterpret_cast<const std::byte*>(data) + step * stride);
    }
};

/// Rows of floats from one on where they lie, from a column on.
inline Steps steps_in_place(const TensorView& view, std::int64_t batch, std::int64_t head, std::int64_t row,
                            std::int64_t column) {
    constexpr auto kSize = static_cast<std::int64_t>(sizeof(float));
    return {reinterpret_cast<const float*>(row_address(view, batch, head, row)) + column, view.strides()[2] * kSize};
}

/// Whether products read a tensor's rows where they lie, as steps: they are floats in whole vectors, and a step is more
/// than one line of the cache. Lines that are far apart arrive so slowly that packing pays (AVX2 on Zen 3: 57 to 70
/// GFLOP/s with 512 bytes between them, 93 packed).
inline bool read_in_place(const TileKernels& kernels, const TensorView& view) {
    constexpr std::int64_t kLineFloats = 16;
    return kernels.format == Format::floats && view.dtype() == DType::float32 && kernels.columns > kLineFloats &&
           view.shape()[3] % kernels.width == 0;
}

}  // namespace attend::kernels::cpu::flash
