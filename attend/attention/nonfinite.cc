#include <attend/attention/nonfinite.h>
#include <attend/core/element.h>
#include <attend/kernels/cpu/flash/operands.h>
#include <attend/kernels/cpu/flash/panel.h>
#include <attend/kernels/cpu/tile_kernels.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

namespace attend::detail {

namespace {

using kernels::AttentionProblem;
using kernels::KeyRange;
using kernels::Sequence;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Whether positions or tensors hide any pair of a sequence.
bool hides_anything(const AttentionProblem& problem, const Sequence& sequence) {
    if (sequence.query_count == 0 || sequence.key_count == 0) return false;
    if (!problem.allowed.empty() || !problem.blocks.empty()) return true;
    const KeyRange first = sequence.keys_of(0);
    const KeyRange last = sequence.keys_of(sequence.query_count - 1);
    return std::max(first.begin, last.begin) > 0 || std::min(first.end, last.end) < sequence.key_count;
}

/// Whether a log-sum-exp is neither finite nor that of a row without weights: some logit that the row sees is not. A
/// bias or a score function may have what rows of the tensors have not.
bool has_broken_sum(const AttentionProblem& problem, const Sequence& sequence, const TensorView& log_sum_exp) {
    const Shape& strides = log_sum_exp.strides();
    for (std::int64_t head = 0; head < problem.heads(); ++head) {
        for (std::int64_t i = 0; i < sequence.query_count; ++i) {
            const std::int64_t at =
                sequence.batch * strides[0] + head * strides[1] + (sequence.query_begin + i) * strides[2];
            if (!(load_element(log_sum_exp.data(), log_sum_exp.dtype(), at) < kInfinity)) return true;
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

/// A row that is not finite.
struct BrokenRow {
    int tensor = 0;  ///< 0 query, 1 grad_output, 2 key, 3 value
    std::int64_t head = 0;
    std::int64_t row = 0;  ///< within the sequence
};

/// Whether a visible pair reads a row. @param group heads of queries that share one of keys
bool is_seen(const kernels::cpu::flash::PanelRules& rules, const Sequence& sequence, const BrokenRow& broken,
             std::int64_t group) {
    if (broken.tensor < 2) {
        const KeyRange keys = sequence.keys_of(broken.row);
        for (std::int64_t j = keys.begin; j < keys.end; ++j) {
            if (rules.visible(broken.head, broken.row, j)) return true;
        }
        return false;
    }
    const KeyRange queries = sequence.queries_of(broken.row, broken.row + 1);
    for (std::int64_t h = broken.head * group; h < (broken.head + 1) * group; ++h) {
        for (std::int64_t i = queries.begin; i < queries.end; ++i) {
            if (rules.visible(h, i, broken.row)) return true;
        }
    }
    return false;
}

}  // namespace

WithoutNonfinite::WithoutNonfinite(const AttentionProblem& problem, const TensorView& grad_output,
                                   const TensorView& log_sum_exp)
    : original_(problem), problem_(problem), grad_output_(grad_output) {
    const kernels::cpu::TileKernels& kernels = kernels::cpu::tile_kernels(problem.query.dtype(), true);
    const std::int64_t kv_heads = problem.key.shape()[1];
    const std::int64_t group = kv_heads == 0 ? 1 : problem.heads() / kv_heads;
    TensorView* views[] = {&problem_.query, &grad_output_, &problem_.key, &problem_.value};
    for (std::size_t s = 0; s < problem.sequences.size(); ++s) {
        const Sequence& sequence = problem.sequences[s];
        if (!hides_anything(problem, sequence)) continue;
        const kernels::cpu::flash::PanelRules rules(problem, sequence, kernels);
        bool visible = has_broken_sum(problem, sequence, log_sum_exp);
        std::vector<BrokenRow> hidden;
        for (int tensor = 0; tensor < 4 && !visible; ++tensor) {
            const bool of_keys = tensor >= 2;
            const std::int64_t begin = of_keys ? sequence.key_begin : sequence.query_begin;
            const std::int64_t count = of_keys ? sequence.key_count : sequence.query_count;
            for (std::int64_t head = 0; head < (of_keys ? kv_heads : problem.heads()) && !visible; ++head) {
                for (const std::int64_t row : broken_rows(kernels, *views[tensor], sequence, head, begin, count)) {
                    hidden.push_back({tensor, head, row});
                    visible = visible || is_seen(rules, sequence, hidden.back(), group);
                }
            }
        }
        if (visible) {
            if (plain_sequences_.empty()) {
                sequences_.assign(problem.sequences.begin(), problem.sequences.end());
                plain_sequences_ = sequences_;
                for (Sequence& other : plain_sequences_) other.query_count = other.key_count = 0;
            }
            std::swap(sequences_[s], plain_sequences_[s]);
            continue;
        }
        for (const BrokenRow& broken : hidden) {
            Tensor& copy = copies_[static_cast<std::size_t>(broken.tensor)];
            TensorView& view = *views[broken.tensor];
            if (copy.numel() == 0) {
                copy = view.clone();
                view = copy.view();
            }
            const std::int64_t begin = broken.tensor >= 2 ? sequence.key_begin : sequence.query_begin;
            MutableTensorView target = copy.view();
            target.select(0, sequence.batch).select(0, broken.head).select(0, begin + broken.row).fill(0.0);
        }
    }
    if (is_visible()) problem_.sequences = sequences_;
}

AttentionProblem WithoutNonfinite::plain_problem() const {
    AttentionProblem result = original_;
    result.sequences = plain_sequences_;
    return result;
}

}  // namespace attend::detail
