/// @file
/// The affine map of torch.nn.Linear.
#pragma once

#include <attend/core/tensor.h>
#include <attend/core/torch_random.h>
#include <attend/nn/module.h>

#include <cstdint>

namespace attend::nn {

/// y = x W^T + b over rows [begin, end) is split among the pool; see Linear::forward.
/// @param x [..., in] @param weight [out, in] @param bias [out], or without elements for none
/// @return [..., out], dtype of x @throws ShapeError, DTypeError
Tensor linear(const TensorView& x, const TensorView& weight, const TensorView& bias);

/// Options of Linear.
struct LinearOptions {
    std::int64_t in_features = 0;   ///< extent of the last dimension of x
    std::int64_t out_features = 0;  ///< extent of the last dimension of y
    bool bias = true;               ///< add b
};

/// y = x W^T + b, with `weight` [out, in] and `bias` [out].
class Linear {
public:
    /// Parameters drawn as torch.nn.Linear draws them: uniform in +-1 / sqrt(in), first the weight, then the bias.
    /// @throws ValueError for negative sizes
    explicit Linear(const LinearOptions& options, TorchGenerator& generator);
    /// Parameters from a state dict: `weight` and, where it is there, `bias`. @throws ValueError, ShapeError,
    /// DTypeError
    explicit Linear(const StateDict& state);

    /// @param x [..., in], any floating dtype, contiguous last dimension @return [..., out], dtype of x; sums are taken
    /// in double and rounded once. @throws ShapeError, DTypeError
    Tensor forward(const TensorView& x) const;

    /// `weight` and `bias`.
    StateDict state_dict() const;
    /// [out_features, in_features]
    const Tensor& weight() const noexcept { return weight_; }
    /// [out_features], or without elements.
    const Tensor& bias() const noexcept { return bias_; }

private:
    Tensor weight_;
    Tensor bias_;
};

}  // namespace attend::nn
