/// @file
/// Linear attention: a feature map in place of the softmax over scores, so that the products can be taken in the other
/// order. Time O(L), and a state of d x dv numbers that takes the place of all keys and values seen so far.
#pragma once

#include <attend/attention/attention.h>
#include <attend/core/tensor.h>
#include <attend/kernels/feature_map.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace attend {

namespace detail {
class CheckedLinearProblem;
}

/// Options of linear attention; forward and backward take the same. Views must outlive the call.
///
/// Decays are given as logarithms, at most 0 (not checked): g = 0 keeps the state, -inf forgets it. Heads below are
/// those of keys and values, to which the state belongs.
struct LinearAttentionOptions {
    std::vector<std::int64_t> key_lengths = {};  ///< keys of each sequence; the rest is padding, never read. Empty: all
    Algorithm algorithm = Algorithm::automatic;  ///< `reference` takes the quadratic form (Q K'^T) V, the oracle
    FeatureMap feature_map = FeatureMap::softmax_keys;  ///< phi, of queries and keys
    std::optional<FeatureFunction> function = {};       ///< phi, for FeatureMap::function
    bool normalise = false;  ///< divide by scale phi(q) . sum of phi(k); a row whose divisor is 0 gives 0
    bool causal = false;     ///< query i sees the keys up to i; a query behind the last key sees all
    double scale = 1.0;      ///< of the queries, after the feature map
    std::vector<std::int64_t> query_starts = {};  ///< sequences packed into a batch of 1, as Mask::packed
    std::vector<std::int64_t> key_starts = {};    ///< the same of the keys; empty: query_starts
    std::optional<TensorView> decay =
        {};  ///< log of what the state keeps: [heads] (retention, Sun et al. 2023), [batch, heads, L] (Dao and Gu
             ///< 2024), or [batch, heads, L, d], one for each channel of the keys (GLA, Yang et al. 2023)
    std::optional<TensorView> beta =
        {};  ///< [batch, heads, L]: the delta rule (Yang et al. 2024), gated where there is a decay (Gated DeltaNet)
    std::optional<TensorView> initial_state = {};       ///< [sequences, heads, d, dv], of LinearAttentionResult::state
    std::optional<TensorView> initial_normaliser = {};  ///< [sequences, heads, d], where normalised
};

/// Q (K'^T V), where K' is the softmax of the keys over their positions, for each of the d channels (the keys' half of
/// Shen et al., "Efficient Attention: Attention with Linear Complexities", 2018). Equal to (Q K'^T) V without its
/// n x n matrix. With options it is any of
///
///     o_i = scale phi(q_i) S_i,   S_t = diag(exp(g_t)) S_(t-1) + phi(k_t) u_t^T,   u_t = v_t
///     delta rule: u_t = beta_t (v_t - (diag(exp(g_t)) S_(t-1))^T phi(k_t))
///     normalised: o_i / (scale phi(q_i) . z_i),   z_t = diag(exp(g_t)) z_(t-1) + phi(k_t)
///
/// where S_i is the last state unless `causal`. Without keys the state is the initial one (0), and with it the output.
/// NaN and infinity reach the rows that see them; those of later tokens never reach earlier rows of a causal call. With
/// FeatureMap::softmax_keys a NaN in a key reaches every row.
///
/// The same bits for any number of threads, and for a sequence alone, packed or padded; but a call of one token on an
/// initial state is the recurrent step of decoding, whose rounding is another.
/// Time O(batch heads L d dv). Memory besides the results: per thread some states and a chunk of tokens; float64 and
/// (in double as well) head sizes above 1024, of values above 1023, go token by token.
/// @param query [batch, heads, Lq, d] @param key [batch, kv_heads, Lk, d] @param value [batch, kv_heads, Lk, dv];
/// dtypes, strides and grouped heads as for attention; causal: Lq = Lk
/// @return [batch, heads, Lq, dv], dtype of the query
/// @throws ShapeError, DTypeError, ValueError (combinations without a meaning)
Tensor linear_attention(const TensorView& query, const TensorView& key, const TensorView& value,
                        const LinearAttentionOptions& options = {});

/// The same into memory of the caller, any strides but for a contiguous last dimension, which must not overlap with the
/// inputs. @throws ShapeError, DTypeError, ValueError
void linear_attention_into(const MutableTensorView& output, const TensorView& query, const TensorView& key,
                           const TensorView& value, const LinearAttentionOptions& options = {});

/// What linear_attention_with_state returns, and what its backward needs.
struct LinearAttentionResult {
    Tensor output;       ///< [batch, heads, Lq, dv], dtype of the query
    Tensor denominator;  ///< [batch, heads, Lq]: scale phi(q) . z, float32 (float64 for float64); where normalised
    Tensor state;        ///< [sequences, kv_heads, d, dv] behind the last token, float32 (float64 for float64)
    Tensor normaliser;   ///< [sequences, kv_heads, d], where normalised
};

/// The same with the state behind the last token, from which the next call may go on. FeatureMap::softmax_keys has none
/// that could. @throws ShapeError, DTypeError, ValueError
LinearAttentionResult linear_attention_with_state(const TensorView& query, const TensorView& key,
                                                  const TensorView& value, const LinearAttentionOptions& options = {});

/// What backward reads of forward's result, in memory of the caller; only where normalised.
struct LinearForwardViews {
    TensorView output = {};       ///< LinearAttentionResult::output
    TensorView denominator = {};  ///< LinearAttentionResult::denominator
};

/// Gradients of linear attention; those of what was not given have no elements.
struct LinearAttentionGradients {
    Tensor query;               ///< shape and dtype of the query
    Tensor key;                 ///< shape and dtype of the key
    Tensor value;               ///< shape and dtype of the value
    Tensor decay;               ///< shape of options.decay; float32 (float64 for float64)
    Tensor beta;                ///< shape of options.beta; float32 (float64 for float64)
    Tensor initial_state;       ///< shape of options.initial_state
    Tensor initial_normaliser;  ///< shape of options.initial_normaliser
};

/// Gradients of what followed from the state that forward returned.
struct LinearStateGradients {
    std::optional<TensorView> state = {};       ///< shape of LinearAttentionResult::state
    std::optional<TensorView> normaliser = {};  ///< shape of LinearAttentionResult::normaliser
};

/// Gradients of sum(grad_output * output) + sum(grad_state * state) + sum(grad_normaliser * normaliser). Each is a
/// linear attention of its own: that of the queries over the same tokens in order, those of keys and values over the
/// tokens in reverse; the delta rule takes one scan more, and sequences of more than 8192 tokens another.
/// Sums over a group of heads run in a fixed order.
///
/// Memory besides the results: per thread some states and a chunk of tokens; with decays a state for every 1024 tokens;
/// for the delta rule (2 dv + d) numbers for each of up to 8192 tokens, and a state for every 8192. float64 and head
/// sizes above 1024 go token by token in double, with O(sqrt(L)) states of memory; `reference` does so for all.
/// @param grad_output [batch, heads, Lq, dv], dtype of the query
/// @param result what forward returned for the same inputs and options; only read where normalised
/// @throws ShapeError, DTypeError, ValueError
LinearAttentionGradients linear_attention_backward(const TensorView& grad_output, const TensorView& query,
                                                   const TensorView& key, const TensorView& value,
                                                   const LinearAttentionResult& result,
                                                   const LinearAttentionOptions& options = {},
                                                   const LinearStateGradients& state_gradients = {});
/// The same of a result that lies elsewhere. @throws ShapeError, DTypeError, ValueError
LinearAttentionGradients linear_attention_backward(const TensorView& grad_output, const TensorView& query,
                                                   const TensorView& key, const TensorView& value,
                                                   const LinearForwardViews& forward,
                                                   const LinearAttentionOptions& options = {},
                                                   const LinearStateGradients& state_gradients = {});

/// The state of causal linear attention between tokens, for decoding: d x dv numbers for each head, however many tokens
/// it has seen.
class LinearAttentionState {
public:
    /// No token seen yet. @param dtype of the queries that will come @throws ShapeError, DTypeError
    LinearAttentionState(std::int64_t batch, std::int64_t kv_heads, std::int64_t dim, std::int64_t value_dim,
                         DType dtype = DType::float32);
    /// Behind the tokens of a call of linear_attention_with_state.
    explicit LinearAttentionState(const LinearAttentionResult& result);

    /// Takes the tokens of key and value in and returns the rows of query, usually one of each: the causal result, as
    /// if all tokens had come in one call (within rounding). Changes the state in place.
    /// @param options those of the whole sequence, with decay and beta of these tokens; `causal` is implied, and the
    /// state itself takes the place of an initial one; all calls are normalised, or none. What throws, and a call of
    /// more than one token that is interrupted, leaves the state as it was
    /// @throws ShapeError, DTypeError, ValueError
    Tensor step(const TensorView& query, const TensorView& key, const TensorView& value,
                const LinearAttentionOptions& options);

    /// The same into memory of the caller, as linear_attention_into. @throws ShapeError, DTypeError, ValueError
    void step_into(const MutableTensorView& output, const TensorView& query, const TensorView& key,
                   const TensorView& value, const LinearAttentionOptions& options);

    /// Sequence s becomes what sequence sources[s] was: beams, or those that go on. @throws ValueError
    void reorder(std::span<const std::int64_t> sources);

    /// [batch, kv_heads, d, dv].
    const Tensor& state() const noexcept { return state_; }
    /// [batch, kv_heads, d].
    const Tensor& normaliser() const noexcept { return normaliser_; }
    /// Whether the tokens so far were normalised; nothing before the first.
    std::optional<bool> normalised() const noexcept { return normalised_; }

private:
    LinearAttentionOptions continued(const LinearAttentionOptions& options) const;
    void advance(const detail::CheckedLinearProblem& checked, const MutableTensorView& output, Algorithm algorithm);

    Tensor state_;
    Tensor normaliser_;
    std::optional<bool> normalised_ = {};  // whether the tokens so far were
};

}  // namespace attend
