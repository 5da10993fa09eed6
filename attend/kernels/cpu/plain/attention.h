/// @file
/// The plain path of attention: tiles of queries and keys, the softmax computed online (Milakov and Gimelshein 2018;
/// Dao et al., FlashAttention, 2022), scores recomputed in backward. No n x n matrix, scratch of a fixed number of
/// rows. bfloat16 and float16 are computed in float, float32 and float64 in double, so that a result is the exact one
/// rounded once, but for the last place.
#pragma once

#include <attend/kernels/attention.h>

#include <cmath>

namespace attend::kernels::cpu {

/// True when the arithmetic of a problem is double, false when it is float.
inline bool computes_in_double(const AttentionProblem& problem) {
    // Options that float cannot hold, or would round to 0.
    const auto beyond_float = [](double x) { return x != 0.0 && !(std::fabs(x) > 1e-30 && std::fabs(x) < 1e30); };
    if (beyond_float(problem.scale) || beyond_float(problem.softcap)) return true;
    if (problem.bias && problem.bias->dtype() == DType::float64) return true;
    return problem.query.dtype() == DType::float32 || problem.query.dtype() == DType::float64;
}

/// Bytes of scratch, aligned to 64, that each of the functions below needs.
std::size_t scratch_size(const AttentionProblem& problem);

/// Rows of one block of at most kQueryTile queries: output, log-sum-exp and, where asked for, weights.
void attention(const AttentionProblem& problem, const AttentionOutputs& outputs, const Block& block,
               std::span<std::byte> scratch);

/// First pass of backward: writes `saved.statistics` for the rows of one block of at most kQueryTile queries.
/// delta is summed as sum_j p_ij d_ij (do_i . v_j) rather than taken as do_i . o_i: the output was rounded, and a row
/// whose gradients cancel (a single key, say) would be left with that rounding.
void attention_row_statistics(const AttentionProblem& problem, const AttentionSaved& saved, const Block& block,
                              std::span<std::byte> scratch);

/// Gradient of the queries of one block of at most kQueryTile.
void attention_grad_query(const AttentionProblem& problem, const AttentionSaved& saved, const Block& block,
                          const MutableTensorView& grad_query, std::span<std::byte> scratch);

/// Gradients of the keys and values of one block of at most kKeyTile keys of a head of the keys; the query heads and
/// blocks that see them are added in order.
void attention_grad_key_value(const AttentionProblem& problem, const AttentionSaved& saved, const Block& block,
                              const MutableTensorView& grad_key, const MutableTensorView& grad_value,
                              std::span<std::byte> scratch);

/// Adds d s_ij of a block of at most kQueryTile queries to `sums`: T is double where
/// computes_in_double, else float.
/// @param sums of T, the bias before broadcasting, with stride 0 over [batch, heads, Lq, Lk] where the bias
/// was broadcast. Blocks that share elements must run one after the other.
void attention_grad_bias(const AttentionProblem& problem, const AttentionSaved& saved, const Block& block,
                         const MutableTensorView& sums, std::span<std::byte> scratch);

}  // namespace attend::kernels::cpu
