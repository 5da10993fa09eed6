/// @file
/// The fast path of linear attention without an order, on the pool. Internal to attention.
#pragma once

#include <attend/kernels/linear_attention.h>

namespace attend::detail {

/// Forward. States of 32 groups of tokens at most for each head of keys are kept until they are added.
void full_linear_forward(const kernels::LinearProblem& problem, const kernels::LinearOutputs& outputs);

/// Backward.
void full_linear_backward(const kernels::LinearProblem& problem, const kernels::LinearSaved& saved,
                          const kernels::LinearGradients& gradients);

}  // namespace attend::detail
