/// @file
/// Dense products in double, on views.
#pragma once

#include <attend/core/tensor.h>

#include <cstdint>
#include <span>

namespace attend::kernels::cpu {

/// A part of a product's output.
struct OutputPart {
    std::int64_t row_begin = 0;     ///< its first row
    std::int64_t row_end = 0;       ///< behind its last
    std::int64_t column_begin = 0;  ///< its first column
    std::int64_t column_end = 0;    ///< behind its last
};

/// Rows of x that one call takes at most, for scratch of a fixed size.
inline constexpr std::int64_t kMatmulRows = 64;

/// Doubles of scratch for a product over `depth`.
std::int64_t multiply_in_double_scratch(std::int64_t depth);

/// A part of y = x W^T + b, at most kMatmulRows rows: x [rows, depth], W [columns, depth], b [columns] or empty, y
/// [rows, columns]; floating dtypes of any kind, last dimensions contiguous. Each output element is one double that
/// runs over k in order and is rounded once, so its bits depend on neither the number of rows nor the instruction set.
/// Cost: rows x columns x depth multiplications and additions, and a copy of x and of the columns' weights.
void multiply_in_double(const TensorView& x, const TensorView& weight, const TensorView& bias,
                        const MutableTensorView& y, const OutputPart& part, std::span<double> scratch);

}  // namespace attend::kernels::cpu
