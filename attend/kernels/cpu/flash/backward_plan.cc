#include <attend/kernels/cpu/flash/backward_plan.h>

#include <attend/core/divide.h>
#include <attend/kernels/cpu/flash/bias_gradient.h>
#include <attend/kernels/cpu/flash/operands.h>
#include <attend/kernels/cpu/flash/panel.h>
#include <attend/kernels/cpu/flash/tile_choice.h>

#include <algorithm>
#include <numbers>
#include <thread>

namespace attend::kernels::cpu::flash {

namespace {

// dS of a key block against a query block takes 100 to 200 KB; dQ is read and written once for each key block.
constexpr std::int64_t kQueriesOfBlock = 256;
constexpr std::int64_t kTiles = 16;      // of a key block: in floats at most, in pairs at least
constexpr std::int64_t kFloatKeys = 96;  // of a key block
constexpr std::int64_t kPairKeys = 192;
constexpr std::int64_t kManyNumbers = std::int64_t{1} << 20;  // of as many queries and rows of grad_output as keys
constexpr std::int64_t kWideRows = 256;                       // d + dv beyond which key blocks stay small

/// Whether dS is multiplied by the scale at last only: pairs round it, a score function's gradients are unscaled, and a
/// scale of 0 would leave nothing for the bias.
bool scales_last(const AttentionProblem& problem, const TileKernels& kernels) {
    return kernels.format == Format::pairs || problem.changes_gradients() || problem.scale == 0.0;
}

}  // namespace

BackwardPlan::BackwardPlan(const AttentionProblem& problem, const TileKernels& tile_kernels, const BiasSums& bias_sums)
    : kernels(tile_kernels),
      bias(bias_sums),
      grad_score_scale(scales_last(problem, tile_kernels) ? 1.0F : static_cast<float>(problem.scale)),
      final_factor(scales_last(problem, tile_kernels) ? static_cast<float>(problem.scale) : 1.0F),
      exponent_factor(tile_kernels.format == Format::pairs && !has_modifiers(problem, tile_kernels)
                          ? static_cast<float>(problem.scale * std::numbers::log2e)
                          : 1.0F),
      depth(depth_of(tile_kernels, problem.query.shape()[3])),
      value_depth(depth_of(tile_kernels, problem.value.shape()[3])),
      blocks(divide_up(problem.query.shape()[3], tile_kernels.columns)),
      value_blocks(divide_up(problem.value.shape()[3], tile_kernels.columns)),
      query_panels(kQueriesOfBlock / tile_kernels.columns),
      queries_in_place(read_in_place(tile_kernels, problem.query)),
      grads_in_place(read_in_place(tile_kernels, problem.value)),
      keys_in_place(read_in_place(tile_kernels, problem.key)),
      keeps_grad_scores(bias.data != nullptr && (tile_kernels.format == Format::pairs || problem.softcap > 0.0)) {
    std::int64_t panel = 0;
    bool whole = true;
    for (const Sequence& sequence : problem.sequences) {
        key_tiles = std::max(key_tiles, key_tiles_of(sequence));
        first_panel.push_back(panel);
        panel += divide_up(sequence.query_count, tile_kernels.columns);
        whole = whole && sequence.query_count % tile_kernels.columns == 0;
    }
    first_panel.push_back(panel);
    sums_in_place = queries_in_place && whole && !scales_last(problem, tile_kernels);
}

std::int64_t BackwardPlan::key_tiles_of(const Sequence& sequence) const {
    const std::int64_t width = kernels.columns * (blocks + value_blocks);
    const std::int64_t times = width <= kWideRows && sequence.key_count * width >= kManyNumbers ? 2 : 1;
    if (kernels.format == Format::floats) return std::min(kTiles, times * kFloatKeys / kernels.rows);
    return std::max(kTiles, times * kPairKeys / kernels.rows);
}

std::int64_t BackwardPlan::query_blocks(const Sequence& sequence) const {
    return divide_up(divide_up(sequence.query_count, kernels.columns), query_panels);
}

const TileKernels& backward_kernels(const AttentionProblem& problem) {
    // Dropped weights, the soft cap's derivative and a score function's are multiplied in as floats.
    return tile_kernels(problem.query.dtype(),
                        problem.dropout > 0.0 || problem.softcap > 0.0 || problem.changes_gradients());
}

void Progress::wait(std::size_t unit, std::int64_t step) const {
    for (int spins = 0; done_[unit].load(std::memory_order_acquire) < step; ++spins) {
        // The other thread is a fraction of a millisecond away, unless it has no core.
        if (spins > 200) std::this_thread::yield();
    }
}

std::vector<KeyBlock> key_blocks(const AttentionProblem& problem, const BackwardPlan& plan, int workers) {
    const std::int64_t kv_heads = problem.key.shape()[1];
    struct Head {
        std::int64_t sequence;
        std::int64_t kv_head;
        std::int64_t tiles;
        std::int64_t rows;  // of a block
        std::int64_t slot;  // of its first block
        std::int64_t previous = -1;
    };
    std::vector<Head> heads;
    std::int64_t slots = 0;
    for (std::size_t s = 0; s < problem.sequences.size(); ++s) {
        const Sequence& sequence = problem.sequences[s];
        const std::int64_t tiles = divide_up(sequence.key_count, plan.kernels.rows);
        if (tiles == 0) continue;
        const std::int64_t rows = divide_up(tiles, divide_up(tiles, plan.key_tiles_of(sequence))) * plan.kernels.rows;
        for (std::int64_t h = 0; h < kv_heads; ++h) {
            heads.push_back({static_cast<std::int64_t>(s), h, tiles, rows, slots});
            slots += divide_up(sequence.key_count, rows);
        }
    }
    // As many heads as there are threads go side by side, block by block: then nobody waits for another's dQ, and what
    // a head has packed stays in the cache. Heads that share elements of the bias go one after the other: blocks add to
    // it in the order in which they are handed out, which must not depend on the threads.
    std::vector<KeyBlock> blocks;
    const auto together = static_cast<std::size_t>(shares_bias(problem, plan.bias) ? 1 : std::max(1, workers));
    for (std::size_t first = 0; first < heads.size(); first += together) {
        const std::size_t last = std::min(heads.size(), first + together);
        bool more = true;
        for (std::int64_t b = 0; more; ++b) {
            more = false;
            for (std::size_t h = first; h < last; ++h) {
                Head& head = heads[h];
                const std::int64_t count = problem.sequences[static_cast<std::size_t>(head.sequence)].key_count;
                const std::int64_t begin = b * head.rows;
                if (begin >= count) continue;
                const auto index = static_cast<std::int64_t>(blocks.size());
                blocks.push_back({head.sequence, head.kv_head, begin, std::min(count, begin + head.rows), index,
                                  head.previous, head.slot + b});
                head.previous = index;
                more = true;
            }
        }
    }
    take_turns(problem, plan, blocks);
    return blocks;
}

}  // namespace attend::kernels::cpu::flash
