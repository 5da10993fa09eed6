/// @file
/// Matrix product, softmax and root in float32 with the order of operations, and so the bits, of PyTorch on x86. For
/// retelling a PyTorch program digit by digit; attention itself is computed by attention/attention.h.
#pragma once

#include <attend/core/tensor.h>

#include <cstdint>

namespace attend::tasks::detail {

/// What PyTorch's order of operations depends on.
struct TorchMachine {
    /// MKL, which multiplies and takes roots, has other code for Intel's processors: one fused multiply-add after the
    /// other in place of rounded products.
    bool intel = false;
    std::int64_t lanes = 8;  ///< floats of a vector of PyTorch's own loops: 8 with AVX2, 16 with AVX-512
};

/// The machine that this runs on.
TorchMachine this_machine();

/// a [n, k] times b [k, m], float32, any strides; b with contiguous columns stands for a transposed operand.
Tensor torch_product(const TensorView& a, const TensorView& b, const TorchMachine& machine);

/// softmax over the last dimension of scores [n, m], float32, row-major.
Tensor torch_softmax(const Tensor& scores, const TorchMachine& machine);

/// sqrt(n) in float32, n >= 1. On others' processors than Intel's PyTorch's vectorized root starts from the processor's
/// estimate and is a unit in the last place off for some n; up to 128 (and 4^k times those) its results on AVX2 are
/// told here, beyond the correctly rounded ones.
float torch_sqrt(std::int64_t n, const TorchMachine& machine);

}  // namespace attend::tasks::detail
