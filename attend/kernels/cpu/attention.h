/// @file
/// The blocked path of attention: tiles of queries and keys, the softmax computed online (Milakov and Gimelshein 2018;
/// Dao et al., FlashAttention, 2022), scores recomputed in backward. No n x n matrix, scratch of a fixed number of
/// rows. float32, bfloat16 and float16 are computed in float, float64 in double.
#pragma once

#include <attend/kernels/attention.h>

namespace attend::kernels::cpu {

/// Bytes of scratch, aligned to 64, that each of the functions below needs.
std::size_t scratch_size(const AttentionProblem& problem);

/// Rows of one block of at most kQueryTile queries: output, log-sum-exp and, where asked for, weights.
void attention(const AttentionProblem& problem, const AttentionOutputs& outputs, const Block& block,
               std::span<std::byte> scratch);

/// Gradient of the queries of one block of at most kQueryTile.
void attention_grad_query(const AttentionProblem& problem, const AttentionSaved& saved, const Block& block,
                          const MutableTensorView& grad_query, std::span<std::byte> scratch);

/// Gradients of the keys and values of one block of at most kKeyTile keys of a head of the keys; the query heads and
/// blocks that see them are added in order.
void attention_grad_key_value(const AttentionProblem& problem, const AttentionSaved& saved, const Block& block,
                              const MutableTensorView& grad_key, const MutableTensorView& grad_value,
                              std::span<std::byte> scratch);

/// Adds d s_ij of a block of at most kQueryTile queries to `sums`: T is float for everything but float64 problems.
/// @param sums float or double, the bias before broadcasting, with stride 0 over [batch, heads, Lq, Lk] where the bias
/// was broadcast. Blocks that share elements must run one after the other.
void attention_grad_bias(const AttentionProblem& problem, const AttentionSaved& saved, const Block& block,
                         const MutableTensorView& sums, std::span<std::byte> scratch);

}  // namespace attend::kernels::cpu
