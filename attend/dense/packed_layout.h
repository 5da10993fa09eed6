/// @file
/// The bytes of a packed matrix: a header of 128 bytes, scales (int8: [panels][32] float32), and panels from the next
/// multiple of 64 on (kernels/cpu/dense/packed_columns.h). Little endian. Internal to dense/.
#pragma once

#include <attend/dense/packed_matrix.h>
#include <attend/kernels/cpu/dense/packed_columns.h>

#include <string>

namespace attend::detail {

/// Where things are in an image.
struct PackedLayout {
    DType dtype = DType::float32;  ///< float32, bfloat16 or int8
    std::int64_t depth = 0;        ///< numbers of a column
    std::int64_t columns = 0;      ///< how many
    std::int64_t scales = 0;       ///< offset of the scales
    std::int64_t panels = 0;       ///< offset of the panels
    std::int64_t bytes = 0;        ///< of the image

    /// Nothing: [0, 0].
    PackedLayout() = default;
    /// @throws ShapeError when it has more bytes than can be addressed
    PackedLayout(DType dtype, std::int64_t depth, std::int64_t columns);
    /// Of an image that was checked when it came; of none: nothing.
    static PackedLayout of(std::span<const std::byte> image) noexcept;
    /// Of an image that may be anything. @throws ValueError unless all that the header announces is there
    static PackedLayout read_header(const std::string& operation, std::span<const std::byte> image);
    /// Writes the header.
    void write_header(std::byte* image) const;

    /// What kernels are given.
    kernels::cpu::dense::PackedColumns columns_of(const std::byte* image) const;
    /// Null where there are none.
    float* scales_of(std::byte* image) const;
};

/// What kernels are given.
kernels::cpu::dense::PackedColumns packed_columns(const PackedMatrix& matrix);

}  // namespace attend::detail
