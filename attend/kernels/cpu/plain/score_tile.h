/// @file
/// The scores of one tile of queries and keys, with everything that changes or masks them. Forward and every backward
/// pass compute their tiles here, so that they see the same numbers.
#pragma once

#include <attend/kernels/attention.h>
#include <attend/kernels/cpu/plain/tile.h>

#include <cstdint>
#include <optional>

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

/// False when masks by blocks hide the tile as a whole.
bool any_block(const AttentionProblem& problem, const TilePosition& tile);

/// Decides by positions and boolean masks. @param attended [kQueryTile][kKeyTile], written when the result is partial
Visibility visibility(const AttentionProblem& problem, const TilePosition& tile, std::uint8_t* attended);

/// Turns products into scores, in place: scores[query_count][kKeyTile] holds q_i . k_j and then s_ij, or -inf where
/// masked. @param slope where given, receives d s_ij / d (scale q_i . k_j), of the soft cap @param raw where given and
/// there is a score function, receives the scores before it
template <typename T>
void finish_scores(const AttentionProblem& problem, const TilePosition& tile, Visibility visible,
                   const std::uint8_t* attended, T* scores, T* slope, float* raw);

/// Gradients with respect to changed scores become those with respect to scores before the score function, in place.
/// @param slot where given, the function's own gradients are asked for as well @param raw [query_count][kKeyTile], of
/// finish_scores; loses the scores of pairs without a gradient
template <typename T>
void change_gradients(const AttentionProblem& problem, const TilePosition& tile, Visibility visible,
                      const std::uint8_t* attended, std::optional<std::int64_t> slot, float* raw, T* grads);

}  // namespace attend::kernels::cpu
