/// @file
/// How the flash path cuts a problem: plain functions that tests can call. What a row's bits depend on (the strips of
/// keys) follows from the number of keys and the head size alone, never from threads, batch or packing.
#pragma once

#include <attend/core/divide.h>
#include <attend/kernels/cpu/tile_kernels.h>

#include <algorithm>
#include <cstdint>

namespace attend::kernels::cpu::flash {

/// A last strip with fewer keys than this joins the one before it.
inline constexpr std::int64_t kLeastStripKeys = 128;
/// Largest head size of the flash path; larger ones take the plain one.
inline constexpr std::int64_t kMostDimensions = 1024;

/// Panels over which weights are multiplied at a time, then added to what the tile has: rounding errors grow with the
/// length of such sums.
inline std::int64_t panels_of_sum(const TileKernels& kernels) {
    return kernels.sum_keys / kernels.columns;
}

/// The same over queries, for gradients of the keys and values of a sequence. Short sequences in floats are summed by
/// 32 or 64: their errors would exceed PyTorch's, which multiplies as many at a time; it costs half a percent. Pairs
/// are rounded by far more. @param keys of the sequence: its queries may have padding behind them, which must not show
inline std::int64_t query_panels_of_sum(const TileKernels& kernels, std::int64_t keys) {
    constexpr std::int64_t kFew = 192;
    constexpr std::int64_t kMany = 768;
    if (kernels.format != Format::floats || keys >= kMany) return panels_of_sum(kernels);
    return std::min<std::int64_t>(panels_of_sum(kernels), (keys < kFew ? 32 : 64) / kernels.columns);
}

/// Keys of a strip whose packed rows have `depth` floats: a quarter of a second-level cache of 1 MiB. Fewer keys mean
/// more passes over the output; more push the queries out.
constexpr std::int64_t strip_keys(std::int64_t depth) {
    constexpr std::int64_t kFloats = std::int64_t{64} * 1024;
    return std::clamp<std::int64_t>(kFloats / std::max<std::int64_t>(depth, 1) / 128 * 128, 256, 2048);
}

/// Number of strips of `keys` keys, `strip` at a time.
constexpr std::int64_t strip_count(std::int64_t keys, std::int64_t strip) {
    const std::int64_t whole = keys / strip;
    const std::int64_t rest = keys % strip;
    if (whole == 0) return rest > 0 ? 1 : 0;
    return whole + (rest >= kLeastStripKeys ? 1 : 0);
}

/// First key of strip `index`; the last strip ends at `keys`.
constexpr std::int64_t strip_begin(std::int64_t index, std::int64_t keys, std::int64_t strip) {
    return index >= strip_count(keys, strip) ? keys : index * strip;
}

/// Most keys that a strip can have.
constexpr std::int64_t most_strip_keys(std::int64_t keys, std::int64_t strip) {
    return std::min(keys, strip + kLeastStripKeys - 1);
}

/// Tiles of queries that share a packed strip of keys. Their queries and outputs are walked over once for each strip
/// and may come from the third-level cache; fewer tiles would pack the keys more often, which costs more (Zen 4, 2048
/// keys: 87.6% of the limit with 400 KB, 89.5% with 1.2 MB, no more above). Not so many that `workers` threads would
/// wait for the last one.
constexpr std::int64_t unit_tiles(std::int64_t tiles, std::int64_t floats_of_row, int rows, std::int64_t units_wanted) {
    constexpr std::int64_t kFloats = std::int64_t{300} * 1024;
    const std::int64_t fitting = std::max<std::int64_t>(4, kFloats / (std::max<std::int64_t>(floats_of_row, 1) * rows));
    const std::int64_t balanced = std::max<std::int64_t>(4, divide_up(tiles, std::max<std::int64_t>(units_wanted, 1)));
    return std::min({tiles, fitting, balanced});
}

}  // namespace attend::kernels::cpu::flash
