/// @file
/// The scalar oracle of attention: the equations of kernels/attention.h in double, one row after the other. Slow, and
/// the judge of everything fast.
#pragma once

#include <attend/kernels/attention.h>

namespace attend::kernels::reference {

/// Doubles of scratch that forward and backward need: O(Lk).
std::size_t scratch_size(const AttentionProblem& problem);

/// Rows of one block. Cost: block rows x Lk x (d + dv).
void attention(const AttentionProblem& problem, const AttentionOutputs& outputs, const Block& block,
               std::span<double> scratch);

/// Sums of gradients in double, row-major, zeroed by the caller.
struct Gradients {
    std::span<double> query;  ///< [batch, heads, Lq, d]
    std::span<double> key;    ///< [batch, kv_heads, Lk, d]
    std::span<double> value;  ///< [batch, kv_heads, Lk, dv]
    std::span<double> bias;   ///< as the bias before broadcasting; empty when not wanted
    Shape bias_strides = {};  ///< strides of `bias` over [batch, heads, Lq, Lk], 0 where it is broadcast
};

/// Adds one head's contributions. Blocks must run one after the other, since they add to the same rows.
void attention_backward(const AttentionProblem& problem, const TensorView& grad_output, const Gradients& gradients,
                        const Block& block, std::span<double> scratch);

}  // namespace attend::kernels::reference
