/// @file
/// Multi-head attention (Vaswani et al. 2017, section 3.2.2), the module of torch.nn.MultiheadAttention.
#pragma once

#include <attend/attention/attention.h>
#include <attend/attention/kv_cache.h>
#include <attend/core/tensor.h>
#include <attend/core/torch_random.h>
#include <attend/nn/forking_cache.h>
#include <attend/nn/linear.h>
#include <attend/nn/module.h>
#include <attend/nn/rotary.h>

#include <cstdint>
#include <functional>
#include <optional>

namespace attend::nn {

/// Sizes of MultiHeadAttention.
struct MultiHeadAttentionOptions {
    std::int64_t d_model = 0;                    ///< width of queries and of the output
    std::int64_t num_heads = 1;                  ///< heads of d_model / num_heads dimensions each
    std::optional<std::int64_t> key_dim = {};    ///< width of keys (PyTorch's kdim); d_model by default
    std::optional<std::int64_t> value_dim = {};  ///< width of values (PyTorch's vdim); d_model by default
    bool bias = true;                            ///< biases in all four projections
};

/// What a forward pass returns.
struct MultiHeadAttentionResult {
    Tensor output;       ///< [batch, Lq, d_model], dtype of the query
    Tensor weights;      ///< [batch, heads, Lq, Lk]; without elements unless asked for
    Tensor log_sum_exp;  ///< [batch, heads, Lq]
};

/// Keys and values of a memory after their projections, for any number of queries.
struct ProjectedMemory {
    Tensor key;    ///< [batch, Lk, inner_dim], rotated where positions are rotary
    Tensor value;  ///< [batch, Lk, inner_dim]
};

/// Names under which parameters are saved; loading takes any of them.
enum class ParameterNames : std::uint8_t {
    packed,    ///< in_proj_weight [3 d_model, d_model], in_proj_bias, out_proj.weight, out_proj.bias (torch.nn)
    separate,  ///< q_proj_weight, k_proj_weight, v_proj_weight, in_proj_bias, out_proj.* (torch.nn with kdim or vdim)
    tutorial,  ///< W_q.weight, W_q.bias, W_k.*, W_v.*, W_o.*: four torch.nn.Linear, for heads of any width
};

/// concat(head_1, ..., head_h) W_o^T + b_o with head_i = attention(query W_q^T + b_q, key W_k^T + b_k, value W_v^T +
/// b_v) on its share of the dimensions. Self attention: one input three times. Cross attention: keys and values from
/// another sequence. Causal: a mask. All heads together are inner_dim wide: d_model, or what the projections say (T5).
class MultiHeadAttention {
public:
    /// What forward_around puts its projections around.
    using Attend = std::function<void(const MutableTensorView& output, const TensorView& query, const TensorView& key,
                                      const TensorView& value)>;

    /// Parameters drawn as torch.nn.MultiheadAttention draws them after torch.manual_seed: the projections' weights
    /// uniform (Glorot and Bengio 2010), their biases 0. @throws ValueError for sizes below 1, or heads that do not
    /// divide d_model
    explicit MultiHeadAttention(const MultiHeadAttentionOptions& options, TorchGenerator& generator);
    /// The same from a generator that nobody else needs; without one, seeded with 0.
    explicit MultiHeadAttention(const MultiHeadAttentionOptions& options,
                                TorchGenerator&& generator = TorchGenerator(0))
        : MultiHeadAttention(options, generator) {}
    /// Parameters from a state dict under any of ParameterNames; sizes are read from the shapes.
    /// @throws ValueError, ShapeError, DTypeError when a parameter is missing, unknown or of another shape
    /// @param kept what the weights are packed as, see Linear
    MultiHeadAttention(const StateDict& state, std::int64_t num_heads, DType kept = DType::float32);
    /// The four projections, packed already: query, key and value to inner_dim, the output from it to d_model.
    /// @throws ValueError, ShapeError
    MultiHeadAttention(Linear query, Linear key, Linear value, Linear output, std::int64_t num_heads);

    /// Self attention of x [batch, L, d_model], any floating dtype. @throws ShapeError, DTypeError, ValueError
    MultiHeadAttentionResult forward(const TensorView& x, const AttentionOptions& options = {}) const {
        return forward(x, x, x, options);
    }
    /// Attention of query [batch, Lq, d_model] to key [batch, Lk, key_dim] with value [batch, Lk, value_dim]. Options
    /// are those of attention (`mask` with booleans broadcast to [batch, heads, Lq, Lk]); weights are returned per
    /// head, where PyTorch by default returns their mean. @throws ShapeError, DTypeError, ValueError
    MultiHeadAttentionResult forward(const TensorView& query, const TensorView& key, const TensorView& value,
                                     const AttentionOptions& options = {}) const;

    /// The projections of key [batch, Lk, key_dim] and value [batch, Lk, value_dim]: once for many queries.
    /// @param positions of rotary keys, see rotate; without elements: 0, 1, ... @throws ShapeError, DTypeError
    ProjectedMemory project(const TensorView& key, const TensorView& value, const TensorView& positions = {}) const;
    /// Attention of query [batch, Lq, d_model] to a memory that is projected. @param residual [batch, Lq, d_model],
    /// added to the output; without elements: none @param positions of rotary queries, as in project
    /// @throws ShapeError, DTypeError, ValueError
    MultiHeadAttentionResult attend_to(const TensorView& query, const ProjectedMemory& memory,
                                       const AttentionOptions& options = {}, const TensorView& residual = {},
                                       const TensorView& positions = {}) const;
    /// A cache for forward_next. @param capacity tokens to begin with @param dtype of what is kept, see KvCacheOptions
    KvCache make_cache(std::int64_t batch, std::int64_t capacity = 256, DType dtype = DType::float32) const;
    /// Causal self attention of the next tokens x [batch, n, d_model] of each sequence (float32, bfloat16 or float16):
    /// their keys and values are appended to the cache, then each attends to all up to itself. What the whole sequences
    /// give under Mask::causal(), within rounding, at the cost of the new tokens. Rotary positions are slots of the
    /// cache, and so are columns of a bias. @param options the causal mask is added to theirs @param residual as in
    /// attend_to @throws ShapeError, DTypeError, ValueError; whatever throws, the cache is as it was
    MultiHeadAttentionResult forward_next(const TensorView& x, KvCache& cache, const AttentionOptions& options = {},
                                          const TensorView& residual = {}) const;
    /// The same with a cache whose rows a search forks. @throws ShapeError, DTypeError, ValueError
    MultiHeadAttentionResult forward_next(const TensorView& x, ForkingCache& cache,
                                          const AttentionOptions& options = {}, const TensorView& residual = {}) const;
    /// The projections around another attention: calls attend(output, query, key, value) once, with the projected heads
    /// [batch, heads, L, d] and where their outputs go, and returns the projected output. @param residual, positions as
    /// in attend_to, of keys as well @throws ShapeError, DTypeError
    Tensor forward_around(const TensorView& query, const TensorView& key, const TensorView& value, const Attend& attend,
                          const TensorView& residual = {}, const TensorView& positions = {}) const;
    /// Queries and keys are rotated by their positions from now on (Su et al. 2021), also in cross attention.
    /// @throws ValueError unless it fits the heads
    void set_rotary(const RotaryOptions& options);
    /// The parameters by the names asked for. @throws ValueError for packed names when key_dim or value_dim is not
    /// d_model, and for PyTorch's names when inner_dim is not
    StateDict state_dict(ParameterNames names = ParameterNames::packed) const;

    const Linear& query_projection() const noexcept { return query_; }    ///< W_q and b_q
    const Linear& key_projection() const noexcept { return key_; }        ///< W_k and b_k
    const Linear& value_projection() const noexcept { return value_; }    ///< W_v and b_v
    const Linear& output_projection() const noexcept { return output_; }  ///< W_o and b_o
    /// Whether queries and keys are rotated.
    bool is_rotary() const noexcept { return rotary_.has_value(); }
    /// Width of queries and of the output.
    std::int64_t d_model() const { return query_.in_features(); }
    /// Width of all heads together.
    std::int64_t inner_dim() const { return query_.out_features(); }
    /// Width of a head.
    std::int64_t head_dim() const { return inner_dim() / num_heads_; }
    /// Number of heads.
    std::int64_t num_heads() const noexcept { return num_heads_; }

private:
    /// Parameters as they are loaded or drawn, before they are packed.
    struct Projection {
        Tensor weight;  // [out, in]
        Tensor bias;    // [out], or without elements
    };
    struct Projections {
        Projection query;
        Projection key;
        Projection value;
        Projection output;
    };

    static Projections load_packed(const StateDict& state);
    static Projections load_separate(const StateDict& state);
    static Projections load_tutorial(const StateDict& state);
    static void split_bias(const StateDict& state, Projections& projections);
    void keep(const Projections& projections, DType kept = DType::float32);
    void check_heads(std::int64_t inner) const;
    TensorView heads_of(const Tensor& projected) const;
    Tensor rotated(Tensor projected, const TensorView& positions) const;
    template <typename Cache, typename AttendNext>
    MultiHeadAttentionResult next(const TensorView& x, Cache& cache, const AttentionOptions& options,
                                  const TensorView& residual, const AttendNext& attend) const;
    Tensor around(const TensorView& query, const ProjectedMemory& memory, const Attend& attend,
                  const TensorView& residual, const TensorView& positions) const;

    Linear query_;
    Linear key_;
    Linear value_;
    Linear output_;
    std::int64_t num_heads_ = 1;
    std::optional<RotaryOptions> rotary_;
};

/// The mean of weights [batch, heads, Lq, Lk] over the heads, as PyTorch returns them: [batch, Lq, Lk].
/// @throws ShapeError, DTypeError
Tensor mean_over_heads(const TensorView& weights);

}  // namespace attend::nn
