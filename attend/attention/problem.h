/// @file
/// Checks a call of attention at the public edge and lays it out for the kernels. Internal to attention.
#pragma once

#include <attend/attention/attention.h>
#include <attend/attention/mask.h>
#include <attend/kernels/attention.h>

#include <functional>
#include <string>
#include <vector>

namespace attend::detail {

/// A checked call; owns what the kernels' description of it points to, but for options.score, so it is neither copied
/// nor moved.
class CheckedProblem {
public:
    /// @param operation name for messages @throws ShapeError, DTypeError, ValueError
    CheckedProblem(const std::string& operation, const TensorView& query, const TensorView& key,
                   const TensorView& value, const AttentionOptions& options);
    CheckedProblem(const CheckedProblem&) = delete;
    CheckedProblem& operator=(const CheckedProblem&) = delete;

    /// What the kernels take.
    const kernels::AttentionProblem& problem() const noexcept { return problem_; }
    Shape output_shape() const;       ///< [batch, heads, Lq, dv]
    Shape weights_shape() const;      ///< [batch, heads, Lq, Lk]
    Shape log_sum_exp_shape() const;  ///< [batch, heads, Lq]
    DType log_sum_exp_dtype() const;  ///< float64 for float64, else float32

private:
    std::vector<kernels::Sequence> sequences_;
    std::vector<TensorView> allowed_;
    std::vector<BlockMask> block_masks_;
    std::vector<kernels::BlockTable> blocks_;
    ScoreFunction score_;  // the caller's, with scratch of its own
    kernels::AttentionProblem problem_;
};

/// Whether a mask holds packed sequences.
bool is_packed(const Mask& mask);
/// Whether a mask holds key lengths.
bool has_key_lengths(const Mask& mask);

/// @throws ShapeError unless `view` has `shape`
void check_shape(const std::string& operation, const std::string& name, const TensorView& view, const Shape& shape);
/// @throws DTypeError unless `view` is of `dtype`
void check_dtype(const std::string& operation, const std::string& name, const TensorView& view, DType dtype);
/// @throws ShapeError unless the last dimension of `view` is contiguous
void check_last_dimension(const std::string& operation, const std::string& name, const TensorView& view);

/// Runs task(block) on the pool for all blocks of `tile` rows of each sequence and head. @param rows_of number of rows
/// of a sequence
void for_each_block(const kernels::AttentionProblem& problem, std::int64_t heads, std::int64_t tile,
                    const std::function<std::int64_t(const kernels::Sequence&)>& rows_of,
                    const std::function<void(const kernels::Block&)>& task);

}  // namespace attend::detail
