/// @file
/// Rotary positions (Su et al. 2021, "RoFormer: Enhanced Transformer with Rotary Position Embedding").
#pragma once

#include <attend/core/tensor.h>

#include <cstdint>

namespace attend::nn {

/// Which numbers of a head are turned together.
enum class RotaryLayout : std::uint8_t {
    interleaved,  ///< 2 i and 2 i + 1 (the paper, GPT-J)
    halves,       ///< i and i + dims / 2 (GPT-NeoX, Llama)
};

/// Options of rotate.
struct RotaryOptions {
    double base = 10000.0;                            ///< pair i of position p is turned by p base^(-2 i / dims)
    std::int64_t dims = 0;                            ///< numbers of a head that are turned, the first; 0: all
    RotaryLayout layout = RotaryLayout::interleaved;  ///< which numbers are a pair
};

/// @throws ValueError unless dims is even and within a head of `head_dim` numbers, and base is above 0
void check_rotary(const RotaryOptions& options, std::int64_t head_dim);

/// Turns the pairs (a, b) of each head in place: (a cos t - b sin t, b cos t + a sin t), t being the angle of the row's
/// position. Scores of what is turned depend on differences of positions alone. Angles are computed in double, products
/// in float32 (float64 in double). Cost: a sine and a cosine for each pair of a row and 3 operations for each number.
/// @param heads [batch, heads, L, head_dim], any floating dtype and strides @param positions int64, broadcast to
/// [batch, L] @throws ShapeError, DTypeError, ValueError
void rotate(const MutableTensorView& heads, const TensorView& positions, const RotaryOptions& options = {});

}  // namespace attend::nn
