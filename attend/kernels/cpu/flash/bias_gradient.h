/// @file
/// The gradient with respect to the additive bias, summed while backward has dS at hand:
///
///     d bias_e = sum of dS_ij over the batches, heads, queries and keys whose bias is element e
///
/// dS is taken before the soft cap's derivative, and as floats. Key blocks that share elements take turns: a block adds
/// a block of queries after the one that was handed out before it on the same keys has (Progress). So nobody waits for
/// a later one, and every element is one sum in the order of sequences, heads, key blocks and queries. Where queries
/// share an element, a key block first adds them up for itself. Where heads do, a group waits for all heads of the one
/// before, so that with fewer key blocks than threads grouped heads wait for each other.
///
/// Cost: dS is read once more and the sums once for each head, some 4 bytes for 10 d operations; memory: the sums, and
/// a panel of them for each key tile.
#pragma once

#include <attend/kernels/attention.h>
#include <attend/kernels/cpu/flash/backward_plan.h>
#include <attend/kernels/cpu/flash/panel.h>

#include <cstdint>
#include <vector>

namespace attend::kernels::cpu::flash {

/// Whether key blocks of different heads or sequences add to the same elements.
bool shares_bias(const AttentionProblem& problem, const BiasSums& bias);

/// Sets `bias_before` of blocks that are in the order in which they are handed out.
void take_turns(const AttentionProblem& problem, const BackwardPlan& plan, std::vector<KeyBlock>& blocks);

/// What one key block adds to the gradient of the bias.
class BiasGradient {
public:
    /// @param problem,plan,progress,block must outlive this @param tile_sums [tile][rows][columns], where queries share
    /// elements
    BiasGradient(const AttentionProblem& problem, const BackwardPlan& plan, const Progress& progress,
                 const KeyBlock& block, float* tile_sums);

    /// Whether queries share elements: gather() and scatter() then take the place of add().
    bool shares_queries() const { return plan_.bias.strides[2] == 0; }
    /// Whether scatter() is due behind the last query of this head of the group.
    bool ends_with(std::int64_t head_of_group) const;

    /// Waits for the block's turn to add a block of queries (where they share elements: a head).
    void wait(std::int64_t head_of_group, std::int64_t query_block) const;
    /// Adds transposed panels of neighbouring tiles, `stride` floats apart: dS of queries against their keys.
    void add(const PanelPosition& position, const float* panels, std::int64_t stride) const;
    /// Adds up panels of one tile, `stride` floats apart.
    void gather(std::int64_t tile, std::int64_t rows, const float* panels, std::int64_t stride,
                std::int64_t count) const;
    /// Adds what was gathered, and begins anew.
    void scatter(std::int64_t head) const;

private:
    void* sums_of(std::int64_t head, std::int64_t query, std::int64_t key) const;

    const BackwardPlan& plan_;
    const Progress& progress_;
    const KeyBlock& block_;
    const TileKernels& kernels_;
    const Sequence& sequence_;
    std::int64_t group_;
    float factor_;
    float* tile_sums_;
};

}  // namespace attend::kernels::cpu::flash
