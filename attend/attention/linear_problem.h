/// @file
/// Checks a call of linear attention at the public edge and lays it out for the kernels. Internal to attention.
#pragma once

#include <attend/attention/linear_attention.h>
#include <attend/attention/problem.h>
#include <attend/kernels/linear_attention.h>

#include <string>

namespace attend::detail {

/// A checked call; owns what the kernels' description of it points to, so it is neither copied nor moved.
class CheckedLinearProblem {
public:
    /// @param operation name for messages @param with_state whether the final state is asked for
    /// @throws ShapeError, DTypeError, ValueError
    CheckedLinearProblem(const std::string& operation, const TensorView& query, const TensorView& key,
                         const TensorView& value, const LinearAttentionOptions& options, bool with_state);
    CheckedLinearProblem(const CheckedLinearProblem&) = delete;
    CheckedLinearProblem& operator=(const CheckedLinearProblem&) = delete;

    /// What the kernels take.
    const kernels::LinearProblem& problem() const noexcept { return problem_; }
    /// Whether there are rows that belong to no sequence, and get zeros.
    bool has_uncovered_rows() const noexcept { return uncovered_; }
    Shape output_shape() const { return checked_.output_shape(); }      ///< [batch, heads, Lq, dv]
    Shape state_shape() const;                                          ///< [sequences, kv_heads, d, dv]
    Shape normaliser_shape() const;                                     ///< [sequences, kv_heads, d]
    DType state_dtype() const { return checked_.log_sum_exp_dtype(); }  ///< float64 for float64, else float32

private:
    void check_combination(const LinearAttentionOptions& options, bool with_state) const;
    void check_lengths(const LinearAttentionOptions& options) const;
    void set_decay(const TensorView& decay);
    void set_beta(const TensorView& beta);
    void set_state(const LinearAttentionOptions& options);

    std::string operation_;
    CheckedProblem checked_;
    std::optional<FeatureFunction> function_;
    bool uncovered_ = false;
    kernels::LinearProblem problem_;
};

}  // namespace attend::detail
