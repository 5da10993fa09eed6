/// @file
/// The fast path of linear attention in order, on the pool. Internal to attention.
#pragma once

#include <attend/kernels/linear_attention.h>

namespace attend::detail {

/// Forward. Heads of keys are independent; where they are fewer than the threads, long sequences are cut into groups of
/// tokens: first what each group adds to the state, then the states before the groups, in order, then their rows.
void causal_linear_forward(const kernels::LinearProblem& problem, const kernels::LinearOutputs& outputs);

}  // namespace attend::detail
