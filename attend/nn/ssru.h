/// @file
/// The simpler simple recurrent unit (Kim et al. 2019, "From Research to Production and Back"), which stands in for the
/// decoder's self-attention in Marian's student models.
#pragma once

#include <attend/core/tensor.h>
#include <attend/nn/linear.h>

namespace attend::nn {

/// g = sigmoid(x W_f^T + b_f), u = x W^T, c = g c + (1 - g) u, y = x + relu(c), one position after the other.
class Ssru {
public:
    /// Of nothing.
    Ssru() = default;
    /// @param update W, without bias @param gate W_f and b_f; both [d, d] @throws ShapeError
    Ssru(Linear update, Linear gate);

    /// @param x float32 [batch, L, d], contiguous @param state c, float32 [batch, d], zeros before the first position;
    /// holds that of the last position afterwards @return [batch, L, d] @throws ShapeError, DTypeError
    Tensor forward(const TensorView& x, Tensor& state) const;

    /// d.
    std::int64_t d_model() const noexcept { return update_.out_features(); }

private:
    Linear update_;
    Linear gate_;
};

}  // namespace attend::nn
