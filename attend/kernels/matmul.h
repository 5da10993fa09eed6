/// @file
/// Dense products on views.
#pragma once

#include <attend/core/tensor.h>

#include <cstdint>
#include <span>

namespace attend::kernels::cpu {

/// Rows of x that one call takes at most, for scratch of a fixed size.
inline constexpr std::int64_t kMatmulRows = 16;

/// Doubles of scratch for a product over `depth`.
constexpr std::int64_t linear_scratch(std::int64_t depth) {
    return (kMatmulRows + 1) * depth;
}

/// y = x W^T + b for rows [begin, end) of x, at most kMatmulRows: x [rows, depth], W [columns, depth], b [columns] or
/// empty, y [rows, columns]; floating dtypes of any kind, last dimensions contiguous. Each output element is one double
/// that runs over k in order and is rounded once, so its bits do not depend on the number of rows.
/// Cost: rows x columns x depth multiply-adds.
void linear(const TensorView& x, const TensorView& weight, const TensorView& bias, const MutableTensorView& y,
            std::int64_t begin, std::int64_t end, std::span<double> scratch);

}  // namespace attend::kernels::cpu
