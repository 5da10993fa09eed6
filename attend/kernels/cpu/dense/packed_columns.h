/// @file
/// Columns of a weight matrix in the order in which tiles read them: panels of 32 columns, [panel][step][32] lanes of
/// 32 bits (dense_kernels.h), columns and depth filled up with 0. The bytes are the same on every instruction set.
#pragma once

#include <attend/core/divide.h>
#include <attend/kernels/cpu/dense_kernels.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace attend::kernels::cpu::dense {

/// Where packed columns lie.
struct PackedColumns {
    Format format = Format::floats;     ///< of the lanes; quads hold bytes with 128 added
    std::int64_t depth = 0;             ///< elements of a column
    std::int64_t columns = 0;           ///< how many
    const std::byte* panels = nullptr;  ///< aligned to 64
    const float* scales = nullptr;      ///< quads: [panels][32], what one step of a column is worth

    /// Lanes of a column.
    std::int64_t steps() const { return (depth + lane_elements(format) - 1) / lane_elements(format); }
    /// How many panels there are.
    std::int64_t panel_count() const { return divide_up(columns, kDenseColumns); }
    /// Bytes of a panel.
    std::int64_t panel_bytes() const { return steps() * kStepBytes; }
};

/// A matrix that is to be packed: float32, bfloat16 or float16, or int8 for quads.
struct ColumnSource {
    const void* data = nullptr;      ///< first element
    DType dtype = DType::float32;    ///< of the elements
    std::int64_t column_stride = 0;  ///< elements from one column to the next
    std::int64_t depth_stride = 0;   ///< elements from one number of a column to the next; either stride is 1
};

/// Columns [first, first + count), at most 32, of a source whose columns are neighbours, as rows of floats (int8: of
/// bytes), `stride` bytes apart: a transposition in the cache.
void gather_rows(const ColumnSource& source, std::int64_t first, std::int64_t count, std::int64_t depth,
                 std::byte* rows, std::int64_t stride);

/// Bytes of scratch of pack_panel.
std::int64_t pack_scratch(std::int64_t depth);

/// Packs one panel of `shape`, whose pointers are not used. Quads of floats: a column's largest magnitude is 127 steps,
/// or a step is worth `given` where that is not 0; `scales` [32] receives it. int8 is taken as it is. Cost: one pass
/// over the elements for each of conversion and transposition.
void pack_panel(const ColumnSource& source, const PackedColumns& shape, std::int64_t panel, float given, std::byte* out,
                float* scales, std::span<std::byte> scratch);

/// One panel of chosen columns: out[step][i] = column columns[i], at most 32 of them. Each costs a cache line a step.
void select_panel(const PackedColumns& from, std::span<const std::int64_t> columns, std::byte* out, float* scales);

/// out[depth] = one column, as floats.
void unpack_column(const PackedColumns& from, std::int64_t column, float* out);

/// out[depth] = the integers of one column. Of quads.
void unpack_integers(const PackedColumns& from, std::int64_t column, std::int8_t* out);

}  // namespace attend::kernels::cpu::dense
