/// @file
/// The choice of tile sizes, as plain functions that tests can call. They depend on shapes only, never on the number
/// of threads or the batch, so that results do not either.
#pragma once

#include <attend/core/divide.h>

#include <cstdint>

namespace attend::kernels {

inline constexpr std::int64_t kQueryTile = 32;  ///< queries of a block of the plain path
inline constexpr std::int64_t kKeyTile = 64;    ///< keys of a tile of the plain path

/// Number of blocks that `rows` rows make.
constexpr std::int64_t block_count(std::int64_t rows, std::int64_t tile) {
    return divide_up(rows, tile);
}

}  // namespace attend::kernels
