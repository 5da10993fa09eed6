/// @file
/// Kernels of linear attention. For channel c of the keys of one sequence and head:
///
///     k'_jc = exp(k_jc) / sum_j' exp(k_j'c),   S_ce = sum_j k'_jc v_je,   o_ie = sum_c q_ic S_ce
#pragma once

#include <attend/kernels/attention.h>

namespace attend::kernels {

namespace reference {

/// Doubles of scratch: O(Lk).
std::int64_t linear_attention_scratch(const AttentionProblem& problem);

/// The quadratic form o_i = sum_j (q_i . k'_j) v_j for the rows of a block; the oracle.
void linear_attention(const AttentionProblem& problem, const MutableTensorView& output, const Block& block,
                      std::span<double> scratch);

}  // namespace reference

namespace cpu {

/// Doubles of scratch: 3 d + 2 dv.
std::int64_t linear_attention_scratch(const AttentionProblem& problem);

/// The state S, [d][dv], of a sequence and a head of the keys, in one pass over them: a channel whose maximum grows has
/// its row of S scaled down.
void linear_attention_state(const AttentionProblem& problem, std::int64_t sequence, std::int64_t kv_head,
                            std::span<double> state, std::span<double> scratch);

/// The rows Q S of a block.
void linear_attention_output(const AttentionProblem& problem, std::span<const double> state,
                             const MutableTensorView& output, const Block& block, std::span<double> scratch);

}  // namespace cpu

}  // namespace attend::kernels
