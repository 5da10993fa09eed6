/// @file
/// Kernels of linear attention. For one sequence and head, with q_i and k_j after the feature map, decays a_t =
/// exp(g_t) (1 without) and W_ij = a_(j+1) ... a_i, channel by channel:
///
///     o_i = scale sum_j ((q_i W_ij) . k_j) v_j    over j <= i (causal) or all j (W = 1)
///         = scale q_i S_i,   S_t = diag(a_t) S_(t-1) + k_t v_t^T
///
/// Normalised: divided by scale q_i . z_i, z_t = diag(a_t) z_(t-1) + k_t. Delta rule: S_t takes u_t = beta_t (v_t -
/// (diag(a_t) S_(t-1))^T k_t) in place of v_t.
#pragma once

#include <attend/core/tensor.h>
#include <attend/kernels/attention.h>
#include <attend/kernels/feature_map.h>
#include <attend/kernels/mask.h>

#include <cstdint>
#include <optional>
#include <span>

namespace attend::kernels {

/// Which numbers a decay has.
enum class Decay : std::uint8_t {
    none,     ///< W = 1
    scalar,   ///< one for each token
    channel,  ///< one for each token and channel of the keys
};

/// One call of linear attention, checked: views of rank 4 have a contiguous last dimension.
struct LinearProblem {
    TensorView query;                           ///< [batch, heads, Lq, d]
    TensorView key;                             ///< [batch, kv_heads, Lk, d]
    TensorView value;                           ///< [batch, kv_heads, Lk, dv]
    std::span<const Sequence> sequences = {};   ///< rows that belong together; the positional mask in them is not used
    FeatureMap map = FeatureMap::softmax_keys;  ///< phi
    const FeatureFunction* function = nullptr;  ///< of FeatureMap::function
    bool normalise = false;                     ///< divide by scale q . z
    bool causal = false;                        ///< query i sees the keys up to i
    double scale = 1.0;                         ///< of the queries
    Decay decay_kind = Decay::none;             ///< of `decay`
    TensorView decay = {};                      ///< g: [batch, kv_heads, Lk, 1 or d]
    std::optional<TensorView> beta = {};        ///< [batch, kv_heads, Lk, 1]; the delta rule where given
    std::optional<TensorView> initial_state = {};       ///< [sequences, kv_heads, d, dv]
    std::optional<TensorView> initial_normaliser = {};  ///< [sequences, kv_heads, d]
    bool one_token = false;                             ///< each sequence has one query, and one key or none

    std::int64_t heads() const { return query.shape()[1]; }      ///< of the queries
    std::int64_t kv_heads() const { return key.shape()[1]; }     ///< of keys, values, decays and states
    std::int64_t group() const { return heads() / kv_heads(); }  ///< heads of queries that share one of keys
    std::int64_t dim() const { return key.shape()[3]; }          ///< d
    std::int64_t value_dim() const { return value.shape()[3]; }  ///< dv
    /// A sequence.
    const Sequence& sequence(std::int64_t index) const { return sequences[static_cast<std::size_t>(index)]; }
};

/// Where forward writes: rows of the problem's sequences.
struct LinearOutputs {
    MutableTensorView output;                           ///< [batch, heads, Lq, dv]
    std::optional<MutableTensorView> denominator = {};  ///< [batch, heads, Lq, 1]: scale q . z
    std::optional<MutableTensorView> state = {};        ///< [sequences, kv_heads, d, dv], after the last token
    std::optional<MutableTensorView> normaliser = {};   ///< [sequences, kv_heads, d], after the last token
};

/// What backward reads besides the problem.
struct LinearSaved {
    TensorView grad_output;                          ///< [batch, heads, Lq, dv]
    std::optional<TensorView> output = {};           ///< of forward; where normalised
    std::optional<TensorView> denominator = {};      ///< of forward; where normalised
    std::optional<TensorView> grad_state = {};       ///< of the final state, [sequences, kv_heads, d, dv]
    std::optional<TensorView> grad_normaliser = {};  ///< of the final normaliser, [sequences, kv_heads, d]
};

/// Where backward writes: rows of the problem's sequences.
struct LinearGradients {
    MutableTensorView query;                           ///< as the query
    MutableTensorView key;                             ///< as the key
    MutableTensorView value;                           ///< as the value
    std::optional<MutableTensorView> decay = {};       ///< [batch, kv_heads, Lk, 1 or d], float32 or float64
    std::optional<MutableTensorView> beta = {};        ///< [batch, kv_heads, Lk, 1]
    std::optional<MutableTensorView> state = {};       ///< of the initial one, [sequences, kv_heads, d, dv]
    std::optional<MutableTensorView> normaliser = {};  ///< of the initial one, [sequences, kv_heads, d]
};

namespace reference {

/// Doubles of scratch.
std::int64_t linear_attention_scratch(const LinearProblem& problem);

/// Every query head that shares a head of keys, for one sequence: the quadratic form over all pairs, and for the delta
/// rule the recurrence. The oracle. Time O(Lq Lk d) and O(L d dv).
void linear_attention(const LinearProblem& problem, const LinearOutputs& outputs, std::int64_t sequence,
                      std::int64_t kv_head, std::span<double> scratch);

}  // namespace reference

}  // namespace attend::kernels
