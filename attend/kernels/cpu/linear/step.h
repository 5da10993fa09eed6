/// @file
/// One token of one sequence and head of keys, the recurrent step of decoding, on a state as it lies in its tensor:
///
///     S = A S + k u^T,  o_r = S^T q_r,    u = v, or beta (v - (A S)^T k) with the delta rule
///
/// No panels, no chunk. 4 d dv operations for the first query head (2 for each other, 2 for the delta rule), and one
/// read and write of the state, which memory binds where it lies there.
#pragma once

#include <attend/kernels/linear_attention.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace attend::kernels::cpu::linear {

/// Whether a sequence is one token with its query, on a state, and nobody in the call has more: chunks give other bits,
/// which a sequence keeps alone, packed and padded.
bool is_step(const LinearProblem& problem, std::int64_t sequence);

/// Bytes of scratch of step.
std::size_t step_scratch(const LinearProblem& problem);

/// Computes it. outputs.state may be the initial state itself.
void step(const LinearProblem& problem, const LinearOutputs& outputs, std::int64_t sequence, std::int64_t kv_head,
          std::span<std::byte> scratch);

}  // namespace attend::kernels::cpu::linear
