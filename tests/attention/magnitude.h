/// @file
/// What rounding errors of attention's results are relative to: sums of absolute terms, which do not cancel.
#pragma once

#include <attend/attention/attention.h>

namespace attend::testing {

/// float64, shapes of the output and of the gradients.
struct Magnitudes {
    Tensor output;  ///< sum_j w_ij |v_j|
    Tensor query;   ///< scale sum_j s_ij |k_j| with s_ij = w_ij (a_ij + sum_j' w_ij' a_ij') and a_ij = |do_i| . |v_j|
    Tensor key;     ///< scale sum_i s_ij |q_i|, over the heads of the group
    Tensor value;   ///< sum_i w_ij |do_i|
    Tensor scores;  ///< s_ij, [batch, heads, Lq, Lk]
};

/// @param weights w_ij, [batch, heads, Lq, Lk] @param scale of the scores
Magnitudes magnitudes(const TensorView& query, const TensorView& key, const TensorView& value,
                      const TensorView& grad_output, const TensorView& weights, double scale);

/// Sums of [batch, heads, Lq, Lk] over what a bias of `shape` is broadcast over: the scale of its gradient.
Tensor summed_like_bias(const TensorView& scores, const Shape& shape);

}  // namespace attend::testing
