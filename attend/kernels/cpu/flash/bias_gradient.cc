#include <attend/kernels/cpu/flash/bias_gradient.h>

#include <attend/kernels/cpu/flash/tile_choice.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <map>
#include <utility>

namespace attend::kernels::cpu::flash {

namespace {

/// The end of some keys, and the block that was the last to add to their elements.
struct Owner {
    std::int64_t end = 0;
    std::int64_t block = 0;
};
/// Owners by the first of their keys, which no two share.
using Owners = std::map<std::int64_t, Owner>;

/// Gives the keys [begin, end) to a block. @return the blocks that had them
std::vector<std::int64_t> hand_over(Owners& owners, std::int64_t begin, std::int64_t end, std::int64_t block) {
    std::vector<std::int64_t> before;
    auto at = owners.upper_bound(begin);
    if (at != owners.begin() && std::prev(at)->second.end > begin) --at;
    while (at != owners.end() && at->first < end) {
        const auto [first, owner] = *at;
        before.push_back(owner.block);
        at = owners.erase(at);
        if (first < begin) owners.emplace(first, Owner{begin, owner.block});
        if (owner.end > end) owners.emplace(end, Owner{owner.end, owner.block});
    }
    owners.emplace(begin, Owner{end, block});
    return before;
}

/// The sum of `count` numbers, a power of two, as a tree. Overwrites them.
float tree_sum(float* x, std::int64_t count) {
    for (std::int64_t half = count / 2; half > 0; half /= 2) {
        for (std::int64_t i = 0; i < half; ++i) x[i] += x[i + half];
    }
    return x[0];
}

}  // namespace

bool shares_bias(const AttentionProblem& problem, const BiasSums& bias) {
    if (bias.data == nullptr) return false;
    const Shape& queries = problem.query.shape();
    // Packed sequences have rows and keys of their own, unless there is one element for all of both.
    return (bias.strides[0] == 0 && queries[0] > 1) || (bias.strides[1] == 0 && queries[1] > 1) ||
           (bias.strides[2] == 0 && bias.strides[3] == 0);
}

void take_turns(const AttentionProblem& problem, const BackwardPlan& plan, std::vector<KeyBlock>& blocks) {
    const BiasSums& bias = plan.bias;
    if (bias.data == nullptr) return;
    std::map<std::pair<std::int64_t, std::int64_t>, Owners> owners;  // of the bias's batches and heads
    for (KeyBlock& block : blocks) {
        const Sequence& sequence = problem.sequences[static_cast<std::size_t>(block.sequence)];
        if (sequence.query_count == 0) continue;
        const bool by_keys = bias.strides[3] != 0;
        const std::int64_t begin = by_keys ? sequence.key_begin + block.begin : 0;
        const std::int64_t end = by_keys ? sequence.key_begin + block.end : 1;
        const std::pair of{bias.strides[0] == 0 ? 0 : sequence.batch, bias.strides[1] == 0 ? 0 : block.kv_head};
        for (const std::int64_t index : hand_over(owners[of], begin, end, block.index)) {
            const KeyBlock& before = blocks[static_cast<std::size_t>(index)];
            const Sequence& other = problem.sequences[static_cast<std::size_t>(before.sequence)];
            block.bias_before.push_back(
                {index, plan.query_blocks(other),
                 other.query_begin == sequence.query_begin && other.query_count == sequence.query_count});
        }
    }
}

BiasGradient::BiasGradient(const AttentionProblem& problem, const BackwardPlan& plan, const Progress& progress,
                           const KeyBlock& block, float* tile_sums)
    : plan_(plan),
      progress_(progress),
      block_(block),
      kernels_(plan.kernels),
      sequence_(problem.sequences[static_cast<std::size_t>(block.sequence)]),
      group_(problem.heads() / problem.key.shape()[1]),
      factor_(plan.grad_score_scale == 0.0F ? 0.0F : 1.0F / plan.grad_score_scale),
      tile_sums_(tile_sums) {
    if (shares_queries()) {
        std::fill_n(tile_sums_, plan.key_tiles * kernels_.rows * kernels_.columns, 0.0F);
    }
}

bool BiasGradient::ends_with(std::int64_t head_of_group) const {
    return plan_.bias.strides[1] != 0 || head_of_group == group_ - 1;
}

void BiasGradient::wait(std::int64_t head_of_group, std::int64_t query_block) const {
    // Where heads share elements, the block before adds those of its whole group first.
    const std::int64_t head = plan_.bias.strides[1] == 0 ? group_ - 1 : head_of_group;
    for (const BiasTurn& turn : block_.bias_before) {
        const bool in_step = turn.same_queries && !shares_queries();
        progress_.wait(static_cast<std::size_t>(turn.block),
                       head * turn.query_blocks + (in_step ? query_block + 1 : turn.query_blocks));
    }
}

void* BiasGradient::sums_of(std::int64_t head, std::int64_t query, std::int64_t key) const {
    const auto& strides = plan_.bias.strides;
    const std::int64_t offset = sequence_.batch * strides[0] + head * strides[1] +
                                (sequence_.query_begin + query) * strides[2] + (sequence_.key_begin + key) * strides[3];
    return static_cast<std::byte*>(plan_.bias.data) + offset * static_cast<std::int64_t>(size_of(plan_.bias.dtype));
}

void BiasGradient::add(const PanelPosition& position, const float* panels, std::int64_t stride) const {
    void* elements = sums_of(position.head, position.query_begin, position.key_begin);
    if (plan_.bias.strides[3] != 0) {
        kernels_.add_transposed({.panels = panels,
                                 .stride = stride,
                                 .rows = position.key_count,
                                 .columns = position.query_count,
                                 .factor = factor_,
                                 .out = elements,
                                 .dtype = plan_.bias.dtype,
                                 .out_stride = plan_.bias.strides[2]});
        return;
    }
    auto* out = static_cast<float*>(elements);
    alignas(64) float sums[kMaxRows * kMaxColumns] = {};
    const std::int64_t whole = position.key_count / kernels_.rows;
    const std::int64_t rest = position.key_count % kernels_.rows;
    kernels_.add_panels(panels, stride, whole, kernels_.rows, sums);
    if (rest > 0) kernels_.add_panels(panels + whole * stride, stride, 1, rest, sums);
    for (std::int64_t r = 1; r < kernels_.rows; ++r) {
        for (std::int64_t j = 0; j < kernels_.columns; ++j) sums[j] += sums[r * kernels_.columns + j];
    }
    for (std::int64_t j = 0; j < position.query_count; ++j) out[j * plan_.bias.strides[2]] += factor_ * sums[j];
}

void BiasGradient::gather(std::int64_t tile, std::int64_t rows, const float* panels, std::int64_t stride,
                          std::int64_t count) const {
    kernels_.add_panels(panels, stride, count, rows, tile_sums_ + tile * kernels_.rows * kernels_.columns);
}

void BiasGradient::scatter(std::int64_t head) const {
    auto* out = static_cast<float*>(sums_of(head, 0, block_.begin));
    for (std::int64_t key = 0; key < block_.end - block_.begin; ++key) {
        float* row = tile_sums_ + key * kernels_.columns;
        out[key * plan_.bias.strides[3]] += factor_ * tree_sum(row, kernels_.columns);
        std::fill_n(row, kernels_.columns, 0.0F);
    }
}

}  // namespace attend::kernels::cpu::flash
