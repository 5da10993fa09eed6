/// @file
/// Linear attention: the softmax goes over the keys alone, so that the products can be taken in the other order.
#pragma once

#include <attend/attention/attention.h>
#include <attend/core/tensor.h>

#include <cstdint>
#include <vector>

namespace attend {

/// Options of linear_attention.
struct LinearAttentionOptions {
    std::vector<std::int64_t> key_lengths =
        {};  ///< keys of each batch entry; the rest is padding, never read. Empty: all
    Algorithm algorithm = Algorithm::automatic;  ///< `reference` takes the quadratic form (Q K'^T) V, the oracle
};

/// Q (K'^T V), where K' is the softmax of the keys over their positions, for each of the d channels (the keys' half of
/// Shen et al., "Efficient Attention: Attention with Linear Complexities", 2018). Equal to (Q K'^T) V without its
/// n x n matrix: O(batch heads (Lq + Lk) d dv) time, and d x dv numbers of memory for each head besides the result.
///
/// Queries are used as they are: no scale, no softmax. Without keys the output is 0. A NaN in a key reaches every row,
/// since the softmax of its channel is over all positions.
/// @param query [batch, heads, Lq, d] @param key [batch, kv_heads, Lk, d] @param value [batch, kv_heads, Lk, dv];
/// dtypes, strides and grouped heads as for attention
/// @return [batch, heads, Lq, dv], dtype of the query @throws ShapeError, DTypeError, ValueError
Tensor linear_attention(const TensorView& query, const TensorView& key, const TensorView& value,
                        const LinearAttentionOptions& options = {});

}  // namespace attend
