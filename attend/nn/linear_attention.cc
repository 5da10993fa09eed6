#include <attend/nn/linear_attention.h>

namespace attend::nn {

MultiHeadAttentionResult LinearAttention::forward(const TensorView& query, const TensorView& key,
                                                  const TensorView& value,
                                                  const LinearAttentionOptions& options) const {
    MultiHeadAttentionResult result;
    result.output =
        projections_.forward_around(query, key, value,
                                    [&](const MutableTensorView& output, const TensorView& q, const TensorView& k,
                                        const TensorView& v) { linear_attention_into(output, q, k, v, options); });
    return result;
}

MultiHeadAttentionResult LinearAttention::forward_next(const TensorView& x, LinearAttentionState& state,
                                                       const LinearAttentionOptions& options) const {
    MultiHeadAttentionResult result;
    result.output = projections_.forward_around(
        x, x, x, [&](const MutableTensorView& output, const TensorView& q, const TensorView& k, const TensorView& v) {
            state.step_into(output, q, k, v, options);
        });
    return result;
}

}  // namespace attend::nn
