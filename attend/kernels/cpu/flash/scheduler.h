/// @file
/// Cuts the work of a call into units for threads.
#pragma once

#include <attend/kernels/attention.h>
#include <attend/kernels/cpu/tile_kernels.h>

#include <cstdint>
#include <vector>

namespace attend::kernels::cpu::flash {

/// Tiles of queries that share the packed keys and values of one head: queries [query_begin, query_end) of the heads
/// [head_begin, head_end), which all read the same head of keys.
struct Unit {
    std::int64_t sequence = 0;     ///< index among the problem's sequences
    std::int64_t head_begin = 0;   ///< first head of the query
    std::int64_t head_end = 0;     ///< behind the last
    std::int64_t query_begin = 0;  ///< first query, a multiple of the tile's rows
    std::int64_t query_end = 0;    ///< behind the last
    std::int64_t cost = 0;         ///< query-key pairs that positions leave visible
};

/// Units in the order in which they are to be handed out: the most expensive first, where costs differ.
/// @param workers threads that will take them; results do not depend on it
/// @param decode_too also the sequences that decode.h would take
std::vector<Unit> forward_units(const AttentionProblem& problem, const TileKernels& kernels, int workers,
                                bool decode_too);

}  // namespace attend::kernels::cpu::flash
