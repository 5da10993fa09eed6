#include <attend/attention/nonfinite.h>

#include <attend/core/element.h>
#include <attend/core/threads.h>
#include <attend/kernels/cpu/flash/operands.h>
#include <attend/kernels/cpu/flash/panel.h>
#include <attend/kernels/cpu/tile_kernels.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace attend::detail {

namespace {

using kernels::AttentionProblem;
using kernels::KeyRange;
using kernels::Sequence;
using kernels::cpu::TileKernels;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::int64_t kRowsOfPart = 1024;
/// Of a log-sum-exp: beyond it floats hold neither it nor a logit to 1% of a weight.
constexpr double kSteep = 65536.0;
/// Beyond this logits in units of 2 are infinite: even -inf added to them would not hide them.
constexpr double kOverflowing = 1e37;

/// Whether positions or tensors hide any pair of a sequence.
bool hides_anything(const AttentionProblem& problem, const Sequence& sequence) {
    if (sequence.query_count == 0 || sequence.key_count == 0) return false;
    if (!problem.allowed.empty() || !problem.blocks.empty()) return true;
    const KeyRange first = sequence.keys_of(0);
    const KeyRange last = sequence.keys_of(sequence.query_count - 1);
    return std::max(first.begin, last.begin) > 0 || std::min(first.end, last.end) < sequence.key_count;
}

/// What log-sum-exps of a head's rows say.
struct Sums {
    bool dead = false;    ///< a row has no weights
    bool broken = false;  ///< one is neither finite nor that of such a row: some logit that the row sees is not. A bias
                          ///< or a score function may have what rows of the tensors have not
    bool steep = false;   ///< one is steep, as where a bias of -1e9 stands for a mask of all keys
    bool overflowing = false;  ///< one is finite and beyond kOverflowing
};

Sums inspect_sums(const Sequence& sequence, std::int64_t head, const TensorView& log_sum_exp) {
    const Shape& strides = log_sum_exp.strides();
    const std::int64_t first = sequence.batch * strides[0] + head * strides[1] + sequence.query_begin * strides[2];
    Sums sums;
    for (std::int64_t i = 0; i < sequence.query_count; ++i) {
        const double sum = load_element(log_sum_exp.data(), log_sum_exp.dtype(), first + i * strides[2]);
        if (std::fabs(sum) <= kSteep) continue;
        sums.dead = sums.dead || sum == -kInfinity;
        sums.broken = sums.broken || !(sum < kInfinity);
        sums.steep = sums.steep || WithoutNonfinite::is_steep(sum);
        sums.overflowing = sums.overflowing || (std::isfinite(sum) && sum > kOverflowing);
    }
    return sums;
}

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

/// Some rows of one tensor and head of a sequence, and what was found there.
struct Part {
    std::size_t sequence = 0;
    int tensor = 0;  ///< as of BrokenRow
    std::int64_t head = 0;
    std::int64_t begin = 0;  ///< within the sequence
    std::int64_t end = 0;
    bool visible = false;                ///< a row that is not finite belongs to a visible pair
    std::vector<BrokenRow> hidden = {};  ///< those that do not, if `visible` is false
};

void inspect(Part& part, const AttentionProblem& problem, const TileKernels& kernels, const TensorView& view,
             std::int64_t group) {
    const Sequence& sequence = problem.sequences[part.sequence];
    const std::int64_t begin = part.tensor >= 2 ? sequence.key_begin : sequence.query_begin;
    const auto all_finite = [&](std::int64_t first, std::int64_t count) {
        return kernels.all_finite(kernels::cpu::flash::rows_of(view, sequence.batch, part.head, begin + first, count));
    };
    if (all_finite(part.begin, part.end - part.begin)) return;
    const kernels::cpu::flash::PanelRules rules(problem, sequence, kernels);
    for (std::int64_t row = part.begin; row < part.end && !part.visible; ++row) {
        if (all_finite(row, 1)) continue;
        part.hidden.push_back({part.tensor, part.head, row});
        part.visible = is_seen(rules, sequence, part.hidden.back(), group);
    }
}

}  // namespace

bool WithoutNonfinite::is_steep(double log_sum_exp) {
    return std::isfinite(log_sum_exp) && std::fabs(log_sum_exp) > kSteep;
}

WithoutNonfinite::WithoutNonfinite(const AttentionProblem& problem, const TensorView& grad_output,
                                   const TensorView& log_sum_exp)
    : original_(problem), problem_(problem), grad_output_(grad_output), log_sum_exp_(log_sum_exp) {
    const TileKernels& kernels = kernels::cpu::tile_kernels(problem.query.dtype(), true);
    const std::int64_t heads = problem.heads();
    const std::int64_t kv_heads = problem.key.shape()[1];
    const std::int64_t group = kv_heads == 0 ? 1 : heads / kv_heads;
    const std::size_t count = problem.sequences.size();
    std::vector<Sums> sums(count * static_cast<std::size_t>(heads));
    parallel_for(static_cast<std::int64_t>(sums.size()), [&](std::int64_t i) {
        sums[static_cast<std::size_t>(i)] =
            inspect_sums(problem.sequences[static_cast<std::size_t>(i / heads)], i % heads, log_sum_exp);
    });

    std::vector<std::uint8_t> visible(count, 0);
    std::vector<std::uint8_t> steep(count, 0);
    std::vector<Part> parts;
    for (std::size_t s = 0; s < count; ++s) {
        const Sequence& sequence = problem.sequences[s];
        Sums all;
        for (std::int64_t head = 0; head < heads; ++head) {
            const Sums& own = sums[s * static_cast<std::size_t>(heads) + static_cast<std::size_t>(head)];
            all.dead = all.dead || own.dead;
            all.broken = all.broken || own.broken;
            all.steep = all.steep || own.steep;
            all.overflowing = all.overflowing || own.overflowing;
        }
        if (all.overflowing) {
            visible[s] = 1;
            continue;
        }
        steep[s] = all.steep ? 1 : 0;
        all.dead = all.dead || all.steep;  // to the tiles
        if (!hides_anything(problem, sequence) && !all.dead) continue;
        visible[s] = all.broken ? 1 : 0;
        for (int tensor = 0; tensor < 4 && !all.broken; ++tensor) {
            const std::int64_t rows = tensor >= 2 ? sequence.key_count : sequence.query_count;
            for (std::int64_t head = 0; head < (tensor >= 2 ? kv_heads : heads); ++head) {
                for (std::int64_t begin = 0; begin < rows; begin += kRowsOfPart) {
                    parts.push_back({s, tensor, head, begin, std::min(rows, begin + kRowsOfPart)});
                }
            }
        }
    }
    TensorView* views[] = {&problem_.query, &grad_output_, &problem_.key, &problem_.value};
    parallel_for(static_cast<std::int64_t>(parts.size()), [&](std::int64_t i) {
        Part& part = parts[static_cast<std::size_t>(i)];
        inspect(part, original_, kernels, *views[part.tensor], group);
    });
    for (const Part& part : parts) {
        if (part.visible) visible[part.sequence] = 1;
    }
    for (const Part& part : parts) {
        if (visible[part.sequence] == 0) hide(problem.sequences[part.sequence], part.hidden);
    }
    for (std::size_t s = 0; s < count; ++s) steep[s] = steep[s] != 0 && visible[s] == 0 ? 1 : 0;
    if (std::find(steep.begin(), steep.end(), 1) != steep.end()) hide_steep_rows(steep);
    if (std::find(visible.begin(), visible.end(), 1) == visible.end()) return;
    sequences_.assign(problem.sequences.begin(), problem.sequences.end());
    plain_sequences_ = sequences_;
    for (std::size_t s = 0; s < count; ++s) {
        Sequence& other = visible[s] != 0 ? sequences_[s] : plain_sequences_[s];
        other.query_count = other.key_count = 0;
    }
    problem_.sequences = sequences_;
}

void WithoutNonfinite::hide_steep_rows(const std::vector<std::uint8_t>& steep) {
    steep_sequences_.assign(original_.sequences.begin(), original_.sequences.end());
    hidden_sums_ = log_sum_exp_.clone();
    log_sum_exp_ = hidden_sums_.view();
    for (std::size_t s = 0; s < steep.size(); ++s) {
        Sequence& sequence = steep_sequences_[s];
        if (steep[s] == 0) {
            sequence.query_count = sequence.key_count = 0;
            continue;
        }
        for (std::int64_t head = 0; head < original_.heads(); ++head) {
            const std::int64_t first =
                (sequence.batch * original_.heads() + head) * hidden_sums_.size(2) + sequence.query_begin;
            for (std::int64_t i = first; i < first + sequence.query_count; ++i) {
                if (!is_steep(load_element(hidden_sums_.data(), hidden_sums_.dtype(), i))) continue;
                store_element(hidden_sums_.data(), hidden_sums_.dtype(), i, -kInfinity);
            }
        }
    }
}

void WithoutNonfinite::hide(const Sequence& sequence, const std::vector<BrokenRow>& rows) {
    TensorView* views[] = {&problem_.query, &grad_output_, &problem_.key, &problem_.value};
    for (const BrokenRow& row : rows) {
        Tensor& copy = copies_[static_cast<std::size_t>(row.tensor)];
        TensorView& view = *views[row.tensor];
        if (copy.numel() == 0) {
            copy = view.clone();
            view = copy.view();
        }
        const std::int64_t begin = row.tensor >= 2 ? sequence.key_begin : sequence.query_begin;
        MutableTensorView target = copy.view();
        target.select(0, sequence.batch).select(0, row.head).select(0, begin + row.row).fill(0.0);
    }
}

AttentionProblem WithoutNonfinite::with(const std::vector<Sequence>& sequences) const {
    AttentionProblem result = original_;
    result.sequences = sequences;
    return result;
}

}  // namespace attend::detail
