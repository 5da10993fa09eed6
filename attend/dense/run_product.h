/// @file
/// Runs a dense product on the pool: rows are prepared, then units computed. Internal to dense/.
#pragma once

#include <attend/core/tensor.h>
#include <attend/kernels/cpu/dense/product.h>

#include <cstdint>
#include <vector>

namespace attend::detail {

/// Fills in the rows of `product` from x and computes it. Rows that are lanes of the format already are read in place,
/// others are converted, at most 2 MB at a time (or 192 rows).
/// @param x [product.count][depth], float32, bfloat16 or float16 @param input_scale quads: see DenseOptions; 0: none
void run_product(kernels::cpu::dense::Product product, const kernels::cpu::Rows& x, double input_scale);

/// out = x W^T + bias, each number one double that is rounded once: for float64. @param x [rows, in] @param weight
/// [out, in] @param bias [out] or without elements @param out [rows, out]; last dimensions contiguous
void run_product_in_double(const TensorView& x, const TensorView& weight, const TensorView& bias,
                           const MutableTensorView& out);

/// The bias as floats, filled up to whole panels, or nothing.
std::vector<float> padded_bias(const TensorView& bias, std::int64_t panels);

}  // namespace attend::detail
