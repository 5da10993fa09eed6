/// @file
/// The scores of one tile of queries and keys, with everything that changes or masks them. Forward and every backward
/// pass compute their tiles here, so that they see the same numbers.
#pragma once

#include <attend/kernels/attention.h>
#include <attend/kernels/tile.h>

#include <cstdint>

namespace attend::kernels::cpu {

/// Where a tile lies; rows and columns are counted within the sequence.
struct TilePosition {
    const Sequence& sequence;  ///< whose rows and columns are counted
    std::int64_t head;         ///< of the query
    std::int64_t query_begin;  ///< first row
    std::int64_t query_count;  ///< at most kQueryTile
    std::int64_t key_begin;    ///< first column
    std::int64_t key_count;    ///< at most kKeyTile
};

/// Which keys of a tile are attended to.
enum class Visibility {
    none,     ///< no element: the tile can be skipped, nothing was computed
    partial,  ///< those with `attended` set
    full,     ///< all; `attended` was not written
};

/// Decides by positions and boolean masks. @param attended [kQueryTile][kKeyTile], written when the result is partial
Visibility visibility(const AttentionProblem& problem, const TilePosition& tile, std::uint8_t* attended);

/// Turns products into scores, in place: scores[query_count][kKeyTile] holds q_i . k_j and then s_ij, or -inf where
/// masked. @param slope where given, receives d s_ij / d (scale q_i . k_j), of the soft cap
template <typename T>
void finish_scores(const AttentionProblem& problem, const TilePosition& tile, Visibility visible,
                   const std::uint8_t* attended, T* scores, T* slope);

}  // namespace attend::kernels::cpu
