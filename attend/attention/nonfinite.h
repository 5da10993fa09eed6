/// @file
/// NaN and infinity under a mask. A product over tiles multiplies hidden pairs by weights of 0, and 0 times NaN is NaN.
/// Internal to attention.
#pragma once

#include <attend/core/tensor.h>
#include <attend/kernels/attention.h>

#include <array>

namespace attend::detail {

/// What backward may read instead of its inputs.
class WithoutNonfinite {
public:
    /// Looks for rows that are not finite, where a mask hides any pair at all. @param log_sum_exp of forward
    WithoutNonfinite(const kernels::AttentionProblem& problem, const TensorView& grad_output,
                     const TensorView& log_sum_exp);

    /// True when a row or a logit that is not finite belongs to a visible pair: the plain path, which skips hidden
    /// pairs one by one, must be taken.
    bool is_visible() const { return visible_; }
    /// The problem with such rows, which no visible pair reads, replaced by 0; the same where there are none.
    const kernels::AttentionProblem& problem() const { return problem_; }
    /// The same of grad_output.
    const TensorView& grad_output() const { return grad_output_; }

private:
    kernels::AttentionProblem problem_;
    TensorView grad_output_;
    std::array<Tensor, 4> copies_;
    bool visible_ = false;
};

}  // namespace attend::detail
