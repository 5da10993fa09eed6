/// @file
/// Linear attention as a module that stands in for multi-head attention.
#pragma once

#include <attend/attention/linear_attention.h>
#include <attend/nn/multi_head_attention.h>

#include <utility>

namespace attend::nn {

/// MultiHeadAttention with linear attention between its projections: the same parameters under the same names, the
/// same call, and time O(L). Weights of a trained MultiHeadAttention load, though they were trained for a softmax.
class LinearAttention {
public:
    /// What calls compute by default: features elu(x) + 1, normalised (Katharopoulos et al., "Transformers are RNNs",
    /// 2020).
    static LinearAttentionOptions default_options() {
        return {.feature_map = FeatureMap::elu_plus_one, .normalise = true};
    }

    /// Parameters as MultiHeadAttention draws them. @param attention of every call: feature map, order, decays; views
    /// in it must outlive the module @throws ValueError
    explicit LinearAttention(const MultiHeadAttentionOptions& options,
                             LinearAttentionOptions attention = default_options(),
                             TorchGenerator&& generator = TorchGenerator(0))
        : projections_(options, generator), attention_(std::move(attention)) {}
    /// Parameters from a state dict under any of ParameterNames. @throws ValueError, ShapeError, DTypeError
    LinearAttention(const StateDict& state, std::int64_t num_heads,
                    LinearAttentionOptions attention = default_options())
        : projections_(state, num_heads), attention_(std::move(attention)) {}

    /// Self attention of x [batch, L, d_model], any floating dtype. @throws ShapeError, DTypeError, ValueError
    MultiHeadAttentionResult forward(const TensorView& x) const { return forward(x, x, x, attention_); }
    /// The same with other options. @throws ShapeError, DTypeError, ValueError
    MultiHeadAttentionResult forward(const TensorView& x, const LinearAttentionOptions& options) const {
        return forward(x, x, x, options);
    }
    /// Attention of query [batch, Lq, d_model] to key [batch, Lk, key_dim] with value [batch, Lk, value_dim].
    /// @throws ShapeError, DTypeError, ValueError
    MultiHeadAttentionResult forward(const TensorView& query, const TensorView& key, const TensorView& value) const {
        return forward(query, key, value, attention_);
    }
    /// The same with other options. There are neither weights nor log-sum-exp in the result.
    /// @throws ShapeError, DTypeError, ValueError
    MultiHeadAttentionResult forward(const TensorView& query, const TensorView& key, const TensorView& value,
                                     const LinearAttentionOptions& options) const;

    /// The state of a batch before its first token, for forward_next. @param dtype of the tokens that will come
    LinearAttentionState make_state(std::int64_t batch, DType dtype = DType::float32) const {
        return {batch, num_heads(), projections_.head_dim(), projections_.head_dim(), dtype};
    }
    /// Causal self attention of the next tokens x [batch, n, d_model] of each sequence: what the whole sequences give
    /// in order, within rounding, at the cost of the new tokens, however many there were. Changes the state.
    /// @throws ShapeError, DTypeError, ValueError
    MultiHeadAttentionResult forward_next(const TensorView& x, LinearAttentionState& state) const {
        return forward_next(x, state, attention_);
    }
    /// The same with other options: decays and beta of these tokens. @throws ShapeError, DTypeError, ValueError
    MultiHeadAttentionResult forward_next(const TensorView& x, LinearAttentionState& state,
                                          const LinearAttentionOptions& options) const;

    /// The parameters by the names asked for. @throws ValueError as MultiHeadAttention
    StateDict state_dict(ParameterNames names = ParameterNames::packed) const { return projections_.state_dict(names); }
    /// Width of queries and of the output.
    std::int64_t d_model() const { return projections_.d_model(); }
    /// Number of heads.
    std::int64_t num_heads() const noexcept { return projections_.num_heads(); }
    /// What calls compute unless they say otherwise.
    const LinearAttentionOptions& options() const noexcept { return attention_; }

private:
    MultiHeadAttention projections_;
    LinearAttentionOptions attention_;
};

}  // namespace attend::nn
