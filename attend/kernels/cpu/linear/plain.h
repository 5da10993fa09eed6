/// @file
/// Linear attention token by token in double: float64, and what the chunks (scan.h) do not have.
///
/// Forward keeps one state. Backward needs the state before every token in reverse: it keeps one at every sqrt(L)-th
/// and computes those in between again. Time O(L d dv), memory O(sqrt(L) d dv) for backward.
#pragma once

#include <attend/kernels/linear_attention.h>

#include <cstdint>
#include <span>

namespace attend::kernels::cpu::linear {

/// Doubles of scratch of plain_forward.
std::int64_t plain_forward_scratch(const LinearProblem& problem);
/// All query heads of one sequence that share a head of keys.
void plain_forward(const LinearProblem& problem, const LinearOutputs& outputs, std::int64_t sequence,
                   std::int64_t kv_head, std::span<double> scratch);

/// Doubles of scratch of plain_backward.
std::int64_t plain_backward_scratch(const LinearProblem& problem);
/// The gradients of the same.
void plain_backward(const LinearProblem& problem, const LinearSaved& saved, const LinearGradients& gradients,
                    std::int64_t sequence, std::int64_t kv_head, std::span<double> scratch);

}  // namespace attend::kernels::cpu::linear
