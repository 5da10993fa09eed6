/// @file
/// How the flash path cuts a problem: plain functions that tests can call. What a row's bits depend on (the strips of
/// keys) follows from the number of keys alone, never from threads, batch or packing.
#pragma once

#include <attend/kernels/cpu/tile_kernels.h>

#include <algorithm>
#include <cstdint>

namespace attend::kernels::cpu::flash {

/// Keys of a strip: the scores of a tile against it, 12 x 512 floats, stay in the first-level cache.
inline constexpr std::int64_t kStripKeys = 512;
/// A last strip with fewer keys than this joins the one before it.
inline constexpr std::int64_t kLeastStripKeys = 128;
/// Largest head size of the flash path; larger ones take the plain one.
inline constexpr std::int64_t kMostDimensions = 1024;

/// Number of strips of `keys` keys.
constexpr std::int64_t strip_count(std::int64_t keys) {
    const std::int64_t whole = keys / kStripKeys;
    const std::int64_t rest = keys % kStripKeys;
    if (whole == 0) return rest > 0 ? 1 : 0;
    return whole + (rest >= kLeastStripKeys ? 1 : 0);
}

/// First key of strip `index`; the last strip ends at `keys`.
constexpr std::int64_t strip_begin(std::int64_t index, std::int64_t keys) {
    return index >= strip_count(keys) ? keys : index * kStripKeys;
}

/// Most keys that a strip can have.
constexpr std::int64_t most_strip_keys(std::int64_t keys) {
    return std::min(keys, kStripKeys + kLeastStripKeys - 1);
}

constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

/// Tiles of queries that share a packed strip of keys: as many as keep queries and outputs within a third or so of
/// the second-level cache, but not so many that `workers` threads would wait for the last one.
constexpr std::int64_t unit_tiles(std::int64_t tiles, std::int64_t floats_of_row, int rows, std::int64_t units_wanted) {
    constexpr std::int64_t kFloats = 100 * 1024;
    const std::int64_t fitting = std::max<std::int64_t>(4, kFloats / (std::max<std::int64_t>(floats_of_row, 1) * rows));
    const std::int64_t balanced = std::max<std::int64_t>(4, divide_up(tiles, std::max<std::int64_t>(units_wanted, 1)));
    return std::min({tiles, fitting, balanced});
}

}  // namespace attend::kernels::cpu::flash
