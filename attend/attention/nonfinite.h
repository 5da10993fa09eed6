/// @file
/// What backward's tiles cannot take: NaN and infinity under a mask (a product over tiles multiplies hidden pairs by
/// weights of 0, and 0 times NaN is NaN), and log-sum-exps so large that a float holds no weight's exponent.
/// Internal to attention.
#pragma once

#include <attend/core/tensor.h>
#include <attend/kernels/attention.h>

#include <array>
#include <cstdint>
#include <vector>

namespace attend::detail {

/// A row of a tensor that is not finite.
struct BrokenRow {
    int tensor = 0;         ///< 0 query, 1 grad_output, 2 key, 3 value
    std::int64_t head = 0;  ///< of the tensor
    std::int64_t row = 0;   ///< within the sequence
};

/// What backward may read instead of its inputs. Sequences are judged one by one: none changes the path, and so the
/// bits, of another.
class WithoutNonfinite {
public:
    /// Looks for rows that are not finite, in sequences where a mask hides any pair at all, or where some row has no
    /// weights although it sees keys: its gradients are 0, and not 0 times what the keys hold. On the pool.
    /// @param log_sum_exp of forward
    WithoutNonfinite(const kernels::AttentionProblem& problem, const TensorView& grad_output,
                     const TensorView& log_sum_exp);

    /// True when a row or a logit that is not finite belongs to a visible pair of any sequence.
    bool has_plain_sequences() const { return !plain_sequences_.empty(); }
    /// Those sequences, the others being empty: the plain path, which skips hidden pairs one by one, must be taken.
    kernels::AttentionProblem plain_problem() const { return with(plain_sequences_); }
    /// True when rows of queries of any other sequence are steep.
    bool has_steep_rows() const { return !steep_sequences_.empty(); }
    /// Those sequences, the others being empty: the plain path must be taken for their steep rows.
    kernels::AttentionProblem steep_problem() const { return with(steep_sequences_); }
    /// Whether a row's log-sum-exp is finite and beyond 65536 in magnitude: a weight is 2 to the difference of two such
    /// numbers, which floats hold to less than 1% of it.
    static bool is_steep(double log_sum_exp);
    /// The other sequences, those being empty, with rows that are not finite, which no visible pair reads, replaced by
    /// 0; the same problem where there are none.
    const kernels::AttentionProblem& problem() const { return problem_; }
    /// The same of grad_output.
    const TensorView& grad_output() const { return grad_output_; }
    /// That of forward, with steep rows as those without weights have it, -inf.
    const TensorView& log_sum_exp() const { return log_sum_exp_; }

private:
    /// Rows become 0 in copies of their tensors.
    void hide(const kernels::Sequence& sequence, const std::vector<BrokenRow>& rows);

    void hide_steep_rows(const std::vector<std::uint8_t>& steep);
    kernels::AttentionProblem with(const std::vector<kernels::Sequence>& sequences) const;

    kernels::AttentionProblem original_;
    kernels::AttentionProblem problem_;
    TensorView grad_output_;
    TensorView log_sum_exp_;
    Tensor hidden_sums_;  // log_sum_exp_, where that is no longer forward's
    std::array<Tensor, 4> copies_;
    std::vector<kernels::Sequence> sequences_;
    std::vector<kernels::Sequence> plain_sequences_;  // empty: none is
    std::vector<kernels::Sequence> steep_sequences_;  // the same
};

}  // namespace attend::detail
