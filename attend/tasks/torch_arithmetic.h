/// @file
/// Matrix product and softmax in float32 with the order of operations, and so the bits, of PyTorch on x86 with AVX2.
/// For retelling a PyTorch program digit by digit; attention itself is computed by attention/attention.h.
#pragma once

#include <attend/core/tensor.h>

#include <cstdint>

namespace attend::tasks::detail {

/// a [n, k] times b [k, m], float32, any strides; b with contiguous columns stands for a transposed operand.
Tensor torch_product(const TensorView& a, const TensorView& b);

/// softmax over the last dimension of scores [n, m], float32, row-major.
Tensor torch_softmax(const Tensor& scores);

/// sqrt(n) in float32, n >= 1. PyTorch's vectorized root starts from the processor's estimate and is a unit in the last
/// place off for some n; up to 128 (and 4^k times those) its results on AVX2 are told here, beyond the correctly
/// rounded ones.
float torch_sqrt(std::int64_t n);

}  // namespace attend::tasks::detail
