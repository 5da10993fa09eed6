/// @file
/// What one call of flash attention's backward (backward.h) decides before it begins: sizes, the unit of work and the
/// order in which units add to what they share.
#pragma once

#include <attend/core/tensor.h>
#include <attend/kernels/attention.h>
#include <attend/kernels/cpu/tile_kernels.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace attend::kernels::cpu::flash {

/// Tiles of a key block at most, of any plan.
constexpr std::int64_t kMostKeyTiles = 32;

/// Where the gradient of the bias is summed: the bias's own shape, seen as [batch, heads, Lq, Lk].
struct BiasSums {
    void* data = nullptr;                      ///< zeros at first; null: the gradient is not asked for
    DType dtype = DType::float32;              ///< any floating type where nothing is summed, no stride being 0
    std::array<std::int64_t, 4> strides = {};  ///< 0 where the bias was broadcast; of keys 0 or 1
};

/// Sizes that all parts of one call share.
struct BackwardPlan {
    /// @param problem must outlive this
    BackwardPlan(const AttentionProblem& problem, const TileKernels& kernels, const BiasSums& bias = {});

    const TileKernels& kernels;      ///< what it is computed with
    BiasSums bias = {};              ///< what dS is added to
    float grad_score_scale = 1.0F;   ///< what dS carries, by values and delta: the problem's scale, or 1
    float final_factor = 1.0F;       ///< what sums over dS lack
    float exponent_factor = 1.0F;    ///< what turns products into exponents of 2 where the operands do not have it
    std::int64_t depth = 0;          ///< steps of d
    std::int64_t value_depth = 0;    ///< steps of dv
    std::int64_t blocks = 0;         ///< column blocks of d
    std::int64_t value_blocks = 0;   ///< column blocks of dv
    std::int64_t key_tiles = 0;      ///< tiles of a key block at most
    std::int64_t query_panels = 0;   ///< panels of a query block at most
    bool queries_in_place = false;   ///< rows of the query are read where they lie
    bool grads_in_place = false;     ///< the same of grad_output
    bool keys_in_place = false;      ///< the same of the key
    bool sums_in_place = false;      ///< dQ is summed in grad_query
    bool keeps_grad_scores = false;  ///< dS is kept once more for the bias, as it is before it is changed or rounded
    /// First panel of each sequence among all panels of queries of one head; one more at the end.
    std::vector<std::int64_t> first_panel = {};

    /// Tiles of a key block of a sequence at most. All queries pass by each block: where they are so many that they
    /// come from memory each time there are twice as many keys, unless rows are so wide that these would not stay in
    /// the cache. They are taken to be as many as keys: padding behind them would change the order of sums.
    std::int64_t key_tiles_of(const Sequence& sequence) const;
    /// Panels of queries of one head, over all sequences.
    std::int64_t panels() const { return first_panel.back(); }
    /// Those of one sequence.
    std::int64_t panels_of(std::int64_t sequence) const {
        const auto s = static_cast<std::size_t>(sequence);
        return first_panel[s + 1] - first_panel[s];
    }
    /// Query blocks of a sequence: the steps that a key block takes for each head.
    std::int64_t query_blocks(const Sequence& sequence) const;
};

/// How far each key block of a head of keys has come, counted in steps (head of the group, query block).
class Progress {
public:
    /// @param units number of key blocks, in the order in which they add to dQ
    explicit Progress(std::size_t units) : done_(units) {}
    /// Waits until unit `unit` has finished all steps before `step`.
    void wait(std::size_t unit, std::int64_t step) const;
    /// Unit `unit` has finished all steps before `step`.
    void advance(std::size_t unit, std::int64_t step) { done_[unit].store(step, std::memory_order_release); }

private:
    std::vector<std::atomic<std::int64_t>> done_;
};

/// A block that must have added to the gradient of the bias before another does.
struct BiasTurn {
    std::int64_t block = 0;         ///< its place in Progress
    std::int64_t query_blocks = 0;  ///< of its sequence
    bool same_queries = false;      ///< whether both sequences cover the same rows of queries
};

/// A key block of one head of keys: the unit of work.
struct KeyBlock {
    std::int64_t sequence = 0;  ///< index among the problem's sequences
    std::int64_t kv_head = 0;   ///< head of keys
    std::int64_t begin = 0;     ///< first key
    std::int64_t end = 0;       ///< behind the last
    std::int64_t index = 0;     ///< its place in Progress
    std::int64_t before = -1;   ///< the place of the block that adds to dQ before it; -1: none
    std::int64_t slot = 0;      ///< its place among all by (sequence, head of keys, keys), whatever the threads
    std::vector<BiasTurn> bias_before = {};  ///< those that added last to elements of the bias that it adds to
};

/// Key blocks in the order in which they must be handed out: each after the one before it.
std::vector<KeyBlock> key_blocks(const AttentionProblem& problem, const BackwardPlan& plan, int workers);

/// The kernels that a problem is computed with.
const TileKernels& backward_kernels(const AttentionProblem& problem);

}  // namespace attend::kernels::cpu::flash
