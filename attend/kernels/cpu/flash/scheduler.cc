#include <attend/kernels/cpu/flash/scheduler.h>

#include <attend/core/divide.h>
#include <attend/kernels/cpu/flash/decode.h>
#include <attend/kernels/cpu/flash/tile_choice.h>

#include <algorithm>

namespace attend::kernels::cpu::flash {

namespace {

/// Keys that queries [begin, end) see, added up; exact enough to order units by.
std::int64_t visible_pairs(const Sequence& sequence, std::int64_t begin, std::int64_t end) {
    if (end <= begin) return 0;
    const auto keys = [&](std::int64_t i) {
        const KeyRange range = sequence.keys_of(i);
        return std::max<std::int64_t>(0, range.end - range.begin);
    };
    return (keys(begin) + keys((begin + end) / 2) + keys(end - 1)) * (end - begin) / 3;
}

}  // namespace

std::vector<Unit> forward_units(const AttentionProblem& problem, const TileKernels& kernels, int workers,
                                bool decode_too) {
    const std::int64_t kv_heads = problem.key.shape()[1];
    if (kv_heads == 0) return {};
    const std::int64_t group = problem.heads() / kv_heads;
    const std::int64_t floats_of_row = problem.query.shape()[3] + problem.value.shape()[3];
    std::int64_t tiles_in_all = 0;
    const auto takes = [&](const Sequence& sequence) { return decode_too || !decodes(problem, sequence); };
    for (const Sequence& sequence : problem.sequences) {
        if (!takes(sequence)) continue;
        tiles_in_all += divide_up(sequence.query_count, kernels.rows) * problem.heads();
    }
    // Four units a thread leave little waiting at the end.
    const std::int64_t balanced = workers <= 1 ? tiles_in_all : divide_up(tiles_in_all, std::int64_t{4} * workers);
    std::vector<Unit> units;
    for (std::size_t s = 0; s < problem.sequences.size(); ++s) {
        const Sequence& sequence = problem.sequences[s];
        const std::int64_t tiles = divide_up(sequence.query_count, kernels.rows);
        if (tiles == 0 || !takes(sequence)) continue;
        // Heads of a group go together as far as they fit, so that they pack their keys once.
        const std::int64_t most = unit_tiles(tiles * group, floats_of_row, kernels.rows, 1);
        const std::int64_t wanted = std::min(std::max<std::int64_t>(balanced, 4), most);
        const std::int64_t heads = std::clamp<std::int64_t>(wanted / tiles, 1, group);
        const std::int64_t blocks = divide_up(tiles, std::max<std::int64_t>(1, heads > 1 ? tiles : wanted));
        const std::int64_t rows = divide_up(tiles, blocks) * kernels.rows;
        for (std::int64_t kv = 0; kv < kv_heads; ++kv) {
            for (std::int64_t h = 0; h < group; h += heads) {
                for (std::int64_t q = 0; q < sequence.query_count; q += rows) {
                    Unit unit{.sequence = static_cast<std::int64_t>(s),
                              .head_begin = kv * group + h,
                              .head_end = kv * group + std::min(group, h + heads),
                              .query_begin = q,
                              .query_end = std::min(sequence.query_count, q + rows)};
                    unit.cost =
                        visible_pairs(sequence, unit.query_begin, unit.query_end) * (unit.head_end - unit.head_begin);
                    units.push_back(unit);
                }
            }
        }
    }
    std::stable_sort(units.begin(), units.end(), [](const Unit& a, const Unit& b) { return a.cost > b.cost; });
    return units;
}

}  // namespace attend::kernels::cpu::flash
