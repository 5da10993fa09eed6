/// @file
/// The fast paths of linear attention: what they take, and one head of each.
#pragma once

#include <attend/kernels/cpu/linear_kernels.h>
#include <attend/kernels/linear_attention.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace attend::kernels::cpu::linear {

/// Whether the fast path has what the problem asks for: floats, head sizes up to flash::kMostDimensions.
bool supports(const LinearProblem& problem);

/// The products of the fast path.
const TileKernels& tiles_of(const LinearProblem& problem);

/// Bytes of scratch of causal_forward.
std::size_t causal_forward_scratch(const LinearProblem& problem);
/// All query heads of one sequence that share a head of keys, in chunks (scan.h).
void causal_forward(const LinearProblem& problem, const LinearOutputs& outputs, std::int64_t sequence,
                    std::int64_t kv_head, std::span<std::byte> scratch);

}  // namespace attend::kernels::cpu::linear
