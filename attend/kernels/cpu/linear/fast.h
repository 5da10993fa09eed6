/// @file
/// The fast paths of linear attention: what they take.
#pragma once

#include <attend/kernels/cpu/linear_kernels.h>
#include <attend/kernels/linear_attention.h>

#include <cstdint>

namespace attend::kernels::cpu::linear {

/// Whether the fast path has what the problem asks for: floats, head sizes up to flash::kMostDimensions.
bool supports(const LinearProblem& problem);

/// The products of the fast path.
const TileKernels& tiles_of(const LinearProblem& problem);

/// Tokens of the groups that a causal sequence is cut into where heads are few; 0: it is not. Follows from the number
/// of heads and tokens alone.
std::int64_t group_tokens(const LinearProblem& problem, std::int64_t sequence);

}  // namespace attend::kernels::cpu::linear
