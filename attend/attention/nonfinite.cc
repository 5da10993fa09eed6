#include <attend/attention/nonfinite.h>
#include <attend/core/element.h>
#include <attend/kernels/cpu/flash/operands.h>
#include <attend/kernels/cpu/flash/panel.h>
#include <attend/kernels/cpu/tile_kernels.h>

#include <algorithm>
#include <limits>
#include <vector>

namespace attend::detail {

namespace {

using kernels::AttentionProblem;
using kernels::KeyRange;
using kernels::Sequence;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Whether positions or tensors hide any pair of the problem.
bool hides_anything(const AttentionProblem& problem) {
    if (!problem.allowed.empty() || !problem.blocks.empty()) return true;
    return std::any_of(problem.sequences.begin(), problem.sequences.end(), [](const Sequence& sequence) {
        if (sequence.query_count == 0 || sequence.key_count == 0) return false;
        const KeyRange first = sequence.keys_of(0);
        const KeyRange last = sequence.keys_of(sequence.query_count - 1);
        return std::max(first.begin, last.begin) > 0 || std::min(first.end, last.end) < sequence.key_count;
    });
}

/// Whether a log-sum-exp is neither finite nor that of a row without weights: some logit that the row sees is not.
bool has_broken_sum(const AttentionProblem& problem, const TensorView& log_sum_exp) {
    const Shape& strides = log_sum_exp.strides();
    for (const Sequence& sequence : problem.sequences) {
        for (std::int64_t head = 0; head < problem.heads(); ++head) {
            for (std::int64_t i = 0; i < sequence.query_count; ++i) {
                const std::int64_t at =
                    sequence.batch * strides[0] + head * strides[1] + (sequence.query_begin + i) * strides[2];
                if (!(load_element(log_sum_exp.data(), log_sum_exp.dtype(), at) < kInfinity)) return true;
            }
        }
    }
    return false;
}

/// Indices, within the sequence, of rows that are not finite.
std::vector<std::int64_t> broken_rows(const kernels::cpu::TileKernels& kernels, const TensorView& view,
                                      const Sequence& sequence, std::int64_t head, std::int64_t begin,
                                      std::int64_t count) {
    const auto rows = [&](std::int64_t first, std::int64_t number) {
        return kernels::cpu::flash::rows_of(view, sequence.batch, head, begin + first, number);
    };
    std::vector<std::int64_t> broken;
    if (count <= 0 || kernels.all_finite(rows(0, count))) return broken;
    for (std::int64_t i = 0; i < count; ++i) {
        if (!kernels.all_finite(rows(i, 1))) broken.push_back(i);
    }
    return broken;
}

}  // namespace

WithoutNonfinite::WithoutNonfinite(const AttentionProblem& problem, const TensorView& grad_output,
                                   const TensorView& log_sum_exp)
    : problem_(problem), grad_output_(grad_output) {
    if (!hides_anything(problem)) return;
    // A bias or a score function may have what rows of the tensors have not.
    visible_ = has_broken_sum(problem, log_sum_exp);
    if (visible_) return;
    const kernels::cpu::TileKernels& kernels = kernels::cpu::tile_kernels(problem.query.dtype(), true);
    const std::int64_t kv_heads = problem.key.shape()[1];
    const std::int64_t group = kv_heads == 0 ? 1 : problem.heads() / kv_heads;
    TensorView* views[] = {&problem_.query, &grad_output_, &problem_.key, &problem_.value};
    for (int which = 0; which < 4; ++which) {
        const bool of_keys = which >= 2;
        TensorView& view = *views[which];
        Tensor& copy = copies_[static_cast<std::size_t>(which)];
        for (const Sequence& sequence : problem.sequences) {
            if (sequence.query_count == 0) continue;
            const kernels::cpu::flash::PanelRules rules(problem, sequence, kernels);
            for (std::int64_t head = 0; head < (of_keys ? kv_heads : problem.heads()); ++head) {
                const std::int64_t begin = of_keys ? sequence.key_begin : sequence.query_begin;
                const std::int64_t count = of_keys ? sequence.key_count : sequence.query_count;
                for (const std::int64_t row : broken_rows(kernels, view, sequence, head, begin, count)) {
                    if (of_keys) {
                        const KeyRange queries = sequence.queries_of(row, row + 1);
                        for (std::int64_t h = head * group; h < (head + 1) * group; ++h) {
                            for (std::int64_t i = queries.begin; i < queries.end; ++i) {
                                visible_ = visible_ || rules.visible(h, i, row);
                            }
                        }
                    } else {
                        const KeyRange keys = sequence.keys_of(row);
                        for (std::int64_t j = keys.begin; j < keys.end; ++j) {
                            visible_ = visible_ || rules.visible(head, row, j);
                        }
                    }
                    if (visible_) return;
                    if (copy.numel() == 0) {
                        copy = view.clone();
                        view = copy.view();
                    }
                    MutableTensorView target = copy.view();
                    target.select(0, sequence.batch).select(0, head).select(0, begin + row).fill(0.0);
                }
            }
        }
    }
}

}  // namespace attend::detail
