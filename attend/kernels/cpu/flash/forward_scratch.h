/// @file
/// The scratch of a unit of forward: what its parts are, how large, and where they begin. One function lays them out
/// and counts their bytes.
#pragma once

#include <attend/core/divide.h>
#include <attend/kernels/attention.h>
#include <attend/kernels/cpu/arena.h>
#include <attend/kernels/cpu/flash/operands.h>
#include <attend/kernels/cpu/flash/tile_choice.h>
#include <attend/kernels/cpu/tile_kernels.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace attend::kernels::cpu::flash {

/// Where queries, keys and scores begin within a page. Were it the same place, the loads of a panel would be held back
/// by the stores of the one before, whose addresses end alike: up to a tenth of the time on Zen 4.
inline constexpr std::size_t kScoresOffset = 1024;

/// Sizes of the parts of scratch, for a unit of `tiles` tiles.
struct ForwardLayout {
    /// Of a problem, with the kernels that compute it.
    ForwardLayout(const AttentionProblem& problem, const TileKernels& kernels, std::int64_t unit_tiles)
        : tiles(unit_tiles),
          depth(depth_of(kernels, problem.query.shape()[3])),
          blocks(divide_up(problem.value.shape()[3], kernels.columns)),
          panel(std::int64_t{kernels.rows} * kernels.columns),
          strip(strip_keys(depth)),
          strip_panels(divide_up(most_strip_keys(problem.key.shape()[2], strip), kernels.columns)),
          strip_steps(strip_panels * kernels.step_columns) {}

    std::int64_t tiles;         ///< of queries
    std::int64_t depth;         ///< of packed queries and keys, in steps
    std::int64_t blocks;        ///< of columns of values
    std::int64_t panel;         ///< floats of a panel of scores
    std::int64_t strip;         ///< keys
    std::int64_t strip_panels;  ///< panels of the longest strip
    std::int64_t strip_steps;   ///< steps of its values
};

/// The parts of scratch. See read_in_place() and Format for which of them there are.
struct ForwardScratch {
    ForwardScratch() = default;
    /// Laid out in `scratch`.
    ForwardScratch(const ForwardLayout& layout, const TileKernels& kernels, std::span<std::byte> scratch) {
        Arena arena(scratch);
        lay_out(layout, kernels, arena);
    }

    float* queries = nullptr;                   ///< [tile][depth][rows]
    float* out = nullptr;                       ///< [tile][block][rows][columns]
    float* maximum = nullptr;                   ///< [tile][kRowSlots]
    float* shift = nullptr;                     ///< [tile][kRowSlots]
    float* sums = nullptr;                      ///< [tile][rows][width]
    std::uint8_t* fresh = nullptr;              ///< of each tile: nothing was added to its output yet
    std::uint32_t* infinite_queries = nullptr;  ///< of each tile, in thirds: a bit for a row with infinity
    std::uint32_t* infinite_keys = nullptr;     ///< of each panel of the strip, likewise
    std::int32_t* broken = nullptr;             ///< keys of the strip whose values are not finite
    float* keys = nullptr;                      ///< [panel][depth][columns]
    float* values = nullptr;                    ///< [block][step][columns], where they are packed
    float* scores = nullptr;                    ///< [panel][rows][columns]
    float* weights = nullptr;                   ///< [panel][rows][step columns]; null: they take the place of scores
    float* strip_maximum = nullptr;             ///< [rows][width]
    float* factors = nullptr;                   ///< [rows][columns], of dropout

    /// @param arena an Arena or an ArenaMeasure
    template <typename Taker>
    void lay_out(const ForwardLayout& layout, const TileKernels& kernels, Taker& arena) {
        const auto take = [&](std::int64_t count) { return arena.template take<float>(count); };
        const std::int64_t rows = kernels.rows;
        arena.align_in_page(0);
        queries = take(layout.tiles * layout.depth * rows);
        out = take(layout.tiles * layout.blocks * layout.panel);
        maximum = take(layout.tiles * kRowSlots);
        shift = take(layout.tiles * kRowSlots);
        sums = take(layout.tiles * rows * kernels.width);
        fresh = arena.template take<std::uint8_t>(layout.tiles);
        infinite_queries = arena.template take<std::uint32_t>(layout.tiles);
        infinite_keys = arena.template take<std::uint32_t>(layout.strip_panels);
        broken = arena.template take<std::int32_t>(layout.strip_panels * kernels.columns);
        arena.align_in_page(0);
        keys = take(layout.strip_panels * layout.depth * kernels.columns);
        values = take(layout.blocks * layout.strip_steps * kernels.columns);
        arena.align_in_page(kScoresOffset);
        scores = take(layout.strip_panels * layout.panel);
        if (kernels.step_columns > kernels.columns) weights = take(layout.strip_panels * rows * kernels.step_columns);
        strip_maximum = take(rows * kernels.width);
        factors = take(layout.panel);
    }
};

}  // namespace attend::kernels::cpu::flash
