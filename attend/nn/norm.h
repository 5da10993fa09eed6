/// @file
/// Normalisation of rows: torch.nn.LayerNorm and torch.nn.RMSNorm.
#pragma once

#include <attend/core/tensor.h>
#include <attend/nn/module.h>

#include <cstdint>

namespace attend::nn {

/// What a norm takes off a row before it divides.
enum class NormKind : std::uint8_t {
    layer,  ///< (x - mean) / sqrt(variance + epsilon) weight + bias (Ba et al. 2016)
    rms,    ///< x / sqrt(mean of squares + epsilon) weight (Zhang and Sennrich 2019)
};

/// Options of Norm.
struct NormOptions {
    NormKind kind = NormKind::layer;  ///< LayerNorm or RMSNorm
    float epsilon = 1e-5F;            ///< added to the variance
};

/// A norm over the last dimension.
class Norm {
public:
    /// Of nothing: width 0.
    Norm() = default;
    /// Weight 1, bias 0. @throws ValueError for a negative width
    Norm(std::int64_t width, const NormOptions& options);
    /// Parameters from a state dict: `weight` [width] and, for LayerNorm, `bias` [width], which may be missing (0).
    /// @throws ValueError, ShapeError, DTypeError
    Norm(const StateDict& state, const NormOptions& options);

    /// @param x [..., width] of float32, bfloat16 or float16, any strides @return the same shape and dtype, contiguous;
    /// computed in float32. @throws ShapeError, DTypeError
    Tensor forward(const TensorView& x) const;
    /// The same in place. @param x contiguous @throws ShapeError, DTypeError
    void forward_in_place(Tensor& x) const;

    /// Extent of the last dimension of x.
    std::int64_t width() const noexcept { return weight_.shape()[0]; }
    /// `weight` and `bias`.
    StateDict state_dict() const;

private:
    void run(const TensorView& x, const MutableTensorView& out) const;

    Tensor weight_;  // float32
    Tensor bias_;    // float32, or without elements
    NormOptions options_;
};

}  // namespace attend::nn
