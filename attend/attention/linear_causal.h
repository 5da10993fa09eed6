/// @file
/// The fast path of linear attention in order, on the pool. Internal to attention.
#pragma once

#include <attend/kernels/linear_attention.h>

namespace attend::detail {

/// Forward. Heads of keys are independent; where they are fewer than the threads, long sequences are cut into groups of
/// tokens: first what each group adds to the state, then the states before the groups, in order, then their rows.
void causal_linear_forward(const kernels::LinearProblem& problem, const kernels::LinearOutputs& outputs);

/// Backward, alike; the delta rule, whose state is no sum over groups, has one thread to a head.
void causal_linear_backward(const kernels::LinearProblem& problem, const kernels::LinearSaved& saved,
                            const kernels::LinearGradients& gradients);

}  // namespace attend::detail
