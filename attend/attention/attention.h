/// @file
/// Scaled dot-product attention (Vaswani et al., "Attention Is All You Need", 2017) and its gradients.
///
/// Shapes: query [batch, heads, Lq, d], key [batch, kv_heads, Lk, d], value [batch, kv_heads, Lk, dv]; heads is a
/// multiple of kv_heads, and a group of heads / kv_heads consecutive heads shares one head of key and value
/// (grouped-query attention, Ainslie et al. 2023). Views may have any strides as long as the last dimension is
/// contiguous, so [batch, length, heads, d] is `.transpose(1, 2)` of a view and a packed [batch, length, 3, heads, d]
/// is `.select(2, 0).transpose(1, 2)`: no copies.
///
/// dtypes: float32, float64, bfloat16, float16, the same for query, key and value; sums are taken in float32, in
/// float64 for float64. Results have the dtype of the query. They are the same bits for any number of threads, and for
/// a sequence alone, in a batch, packed or padded (dropout draws by the sequence's index, so it must be the same). Up
/// to 4 queries of more keys than that are decoding, whose rounding is another: not the same bits as padded with more
/// queries; nor with a score function are those of fewer keys.
#pragma once

#include <attend/attention/mask.h>
#include <attend/attention/score_function.h>
#include <attend/core/tensor.h>

#include <cstdint>
#include <optional>
#include <tuple>

namespace attend {

/// Which implementation computes.
enum class Algorithm : std::uint8_t {
    automatic,  ///< the fastest that has what is asked for
    reference,  ///< the scalar oracle in double: one row of scores at a time (linear attention's gradients: token by
                ///< token)
    flash,      ///< tiles and an online softmax: memory O(n) (Dao et al., "FlashAttention", 2022)
};

/// Options of attention; forward and backward take the same. Bias and slopes are views: their tensors must outlive the
/// call, so a temporary tensor must not be assigned to them.
struct AttentionOptions {
    Mask mask = {};                       ///< which keys each query attends to
    std::optional<TensorView> bias = {};  ///< floating, broadcast to [batch, heads, Lq, Lk], added to scaled scores
    std::optional<TensorView> alibi_slopes =
        {};                              ///< float32 [heads] or [batch, heads]: -slope |i + offset - j| (Press 2022)
    std::optional<double> scale = {};    ///< of the scores; 1 / sqrt(d) by default, and 0 is 0
    std::optional<double> softcap = {};  ///< c > 0: scaled scores x become c tanh(x / c) (Gemma 2, 2024)
    double dropout = 0.0;                ///< probability in [0, 1]; kept weights are divided by 1 - dropout
    std::uint64_t seed = 0;              ///< of the dropout: Philox by (seed, sequence, head, query, key)
    std::optional<ScoreFunction> score = {};     ///< changes scores after all of the above, before the mask
    bool return_weights = false;                 ///< also return the weights, a [batch, heads, Lq, Lk] tensor
    Algorithm algorithm = Algorithm::automatic;  ///< which implementation
};

/// What attention returns, and what its backward needs.
struct AttentionResult {
    Tensor output;   ///< [batch, heads, Lq, dv], dtype of the query
    Tensor weights;  ///< [batch, heads, Lq, Lk], dtype of the query, dropout applied; without elements unless asked for
    Tensor log_sum_exp;  ///< [batch, heads, Lq], natural logarithm, before dropout; float32 (float64 for float64)
};

/// softmax(f(cap(scale Q K^T) + bias + ALiBi), masked) V, f being options.score.
///
/// A query that attends to no key gives output 0, weights 0 and log-sum-exp -inf. NaN and Inf in attended inputs reach
/// exactly the rows that attend to them; what the mask hides is never read into a result. A bias of -inf is arithmetic,
/// not a mask: it gives weight 0, but the key and value are read.
///
/// Time O(batch heads Lq Lk (d + dv)) without the tiles that no query sees; memory besides the results: for each thread
/// a strip of packed keys and values and a block of queries and outputs, 1 to 6 MiB whatever the lengths (`reference`:
/// O(Lk)). float32, bfloat16 and float16 accumulate in float32. A plainer path takes float64, a bias of float64, head
/// sizes above 1024, and scales or soft caps whose magnitude is not between 1e-6 and 1e6 (nor 0): in double, but for
/// 16-bit types in float as long as floats hold them (1e-30 to 1e30). Sequences of up to 4 queries (64 rows with the
/// heads that share keys) are computed key by key (flash-decoding) unless dropout or a mask by blocks are asked for:
/// the same within rounding. Weights come from a second pass and change no bit of the output.
/// @throws ShapeError, DTypeError, ValueError
AttentionResult attention(const TensorView& query, const TensorView& key, const TensorView& value,
                          const AttentionOptions& options = {});

/// Where attention_into writes; all strides allowed but for a contiguous last dimension of `output`.
struct AttentionTargets {
    MutableTensorView output;                           ///< [batch, heads, Lq, dv], dtype of the query
    std::optional<MutableTensorView> weights = {};      ///< [batch, heads, Lq, Lk], any floating dtype
    std::optional<MutableTensorView> log_sum_exp = {};  ///< [batch, heads, Lq], float32 or float64
};

/// The same into memory of the caller, which must not overlap with the inputs. `options.return_weights` is ignored.
/// @throws ShapeError, DTypeError, ValueError
void attention_into(const AttentionTargets& targets, const TensorView& query, const TensorView& key,
                    const TensorView& value, const AttentionOptions& options = {});

/// Which keys each query attends to under options.mask: bool [batch, heads, Lq, Lk], true = attended to. What attention
/// computes with, written out: to be looked at, or drawn beside the weights. Only the shapes of query and key are read.
/// Time and memory O(batch heads Lq Lk). @throws ShapeError, DTypeError, ValueError as attention
Tensor attended_keys(const TensorView& query, const TensorView& key, const AttentionOptions& options = {});

/// Gradients of attention. `auto [dq, dk, dv] = attention_backward(...)` takes the first three.
struct AttentionGradients {
    Tensor query;  ///< shape and dtype of the query
    Tensor key;    ///< shape and dtype of the key
    Tensor value;  ///< shape and dtype of the value
    Tensor bias;   ///< shape (before broadcasting) and dtype of options.bias; without elements when there is none
};

/// Gradients of sum(grad_output * output) (Dao et al. 2022, section 3.1). Dropout is drawn again from its seed.
/// Sums over a group of heads, and over what the bias was broadcast over, run in a fixed order. Rows that attend to
/// nothing have gradients of 0. Rows with a log-sum-exp beyond 65536 in magnitude (a bias of -1e9 on all keys of a
/// padded query) take the plain path (in double but for 16-bit types), since no float holds their weights' exponents;
/// so does everything where the bias's gradient is asked for as well.
/// Memory: query and grad_output once more, packed; for 16-bit types also the query's gradient in float32, and that of
/// a bias that was broadcast. Gradients of what options.score has learned: ScoreFunction::parameters.
/// @param grad_output [batch, heads, Lq, dv], dtype of the query
/// @param result what attention returned for the same inputs and options; a fast path reads output and log_sum_exp
/// where that is exact enough, and recomputes them where it is not
/// @throws ShapeError, DTypeError, ValueError
AttentionGradients attention_backward(const TensorView& grad_output, const TensorView& query, const TensorView& key,
                                      const TensorView& value, const AttentionResult& result,
                                      const AttentionOptions& options = {});

/// Where attention_backward_into writes: any strides but for a contiguous last dimension.
struct AttentionGradientTargets {
    MutableTensorView query;                     ///< shape and dtype of the query
    MutableTensorView key;                       ///< shape and dtype of the key
    MutableTensorView value;                     ///< shape and dtype of the value
    std::optional<MutableTensorView> bias = {};  ///< shape of options.bias, any floating dtype
};

/// The same into memory of the caller. @param output,log_sum_exp of forward @throws ShapeError, DTypeError, ValueError
void attention_backward_into(const AttentionGradientTargets& targets, const TensorView& grad_output,
                             const TensorView& query, const TensorView& key, const TensorView& value,
                             const TensorView& output, const TensorView& log_sum_exp,
                             const AttentionOptions& options = {});

/// Structured bindings of AttentionGradients: query, key, value.
template <std::size_t I>
auto& get(AttentionGradients& gradients) {
    if constexpr (I == 0) return gradients.query;
    if constexpr (I == 1) return gradients.key;
    if constexpr (I == 2) return gradients.value;
}
/// The same for structured bindings of another value category.
template <std::size_t I>
const auto& get(const AttentionGradients& gradients) {
    return get<I>(const_cast<AttentionGradients&>(gradients));
}
/// The same for structured bindings of another value category.
template <std::size_t I>
auto&& get(AttentionGradients&& gradients) {
    return std::move(get<I>(gradients));
}

}  // namespace attend

/// @cond structured bindings
template <>
struct std::tuple_size<attend::AttentionGradients> : std::integral_constant<std::size_t, 3> {};
template <std::size_t I>
struct std::tuple_element<I, attend::AttentionGradients> {
    using type = attend::Tensor;
};
/// @endcond
