#include <attend/kernels/cpu/plain/score_tile.h>

#include <attend/core/element.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace attend::kernels::cpu {

namespace {

/// Intervals of keys only: true when every query of the tile sees every key.
bool positions_full(const TilePosition& tile) {
    const KeyRange first = tile.sequence.keys_of(tile.query_begin);
    const KeyRange last = tile.sequence.keys_of(tile.query_begin + tile.query_count - 1);
    // Both ends of the interval move with the query, so the extreme queries decide.
    return std::max(first.begin, last.begin) <= tile.key_begin &&
           std::min(first.end, last.end) >= tile.key_begin + tile.key_count;
}

void apply_boolean(const TensorView& mask, const TilePosition& tile, std::uint8_t* attended) {
    const std::int64_t step = mask.strides()[3];
    for (std::int64_t r = 0; r < tile.query_count; ++r) {
        const std::byte* row =
            row_address(mask, tile.sequence.batch, tile.head, tile.sequence.query_begin + tile.query_begin + r);
        row += (tile.sequence.key_begin + tile.key_begin) * step;
        std::uint8_t* out = attended + r * kKeyTile;
        for (std::int64_t j = 0; j < tile.key_count; ++j) {
            if (row[j * step] == std::byte{0}) out[j] = 0;
        }
    }
}

MaskRange range_of(const TilePosition& tile) {
    return {tile.sequence.batch,
            tile.head,
            tile.sequence.query_begin + tile.query_begin,
            tile.query_count,
            tile.sequence.key_begin + tile.key_begin,
            tile.key_count};
}

void apply_blocks(const BlockTable& blocks, const TilePosition& tile, std::uint8_t* attended) {
    std::uint8_t own[kQueryTile * kKeyTile];
    std::fill_n(own, tile.query_count * kKeyTile, std::uint8_t{1});
    blocks.hide(range_of(tile), own, kKeyTile, 1);
    for (std::int64_t e = 0; e < tile.query_count * kKeyTile; ++e) {
        if (own[e] == 0) attended[e] = 0;
    }
}

template <typename Tile>
Tile tile_of(const AttentionProblem& problem, const TilePosition& tile) {
    auto result = tile_at<Tile>(problem, tile.sequence, tile.head, tile.query_begin, tile.query_count, tile.key_begin,
                                tile.key_count);
    result.query_stride = kKeyTile;
    result.key_stride = 1;
    return result;
}

/// The score function on floats. A score that it leaves alone keeps what floats would have rounded away.
template <typename T>
void change_scores(const AttentionProblem& problem, const TilePosition& tile, T* scores, float* raw) {
    float changed[kQueryTile * kKeyTile];
    const std::int64_t count = tile.query_count * kKeyTile;
    for (std::int64_t e = 0; e < count; ++e) changed[e] = static_cast<float>(scores[e]);
    if (raw != nullptr) std::copy_n(changed, count, raw);
    auto called = tile_of<ScoreTile>(problem, tile);
    called.scores = changed;
    problem.score->change(called);
    for (std::int64_t e = 0; e < count; ++e) {
        if (changed[e] != static_cast<float>(scores[e])) scores[e] = static_cast<T>(changed[e]);
    }
}

}  // namespace

bool any_block(const AttentionProblem& problem, const TilePosition& tile) {
    return std::none_of(problem.blocks.begin(), problem.blocks.end(),
                        [&](const BlockTable& blocks) { return blocks.kind_of(range_of(tile)) == BlockKind::none; });
}

template <typename T>
void change_gradients(const AttentionProblem& problem, const TilePosition& tile, Visibility visible,
                      const std::uint8_t* attended, std::optional<std::int64_t> slot, float* raw, T* grads) {
    float changed[kQueryTile * kKeyTile];
    for (std::int64_t e = 0; e < tile.query_count * kKeyTile; ++e) {
        const bool in = e % kKeyTile < tile.key_count && (visible == Visibility::full || attended[e] != 0);
        changed[e] = in ? static_cast<float>(grads[e]) : 0.0F;
        if (changed[e] == 0.0F) raw[e] = 0.0F;
    }
    auto called = tile_of<ScoreGradientTile>(problem, tile);
    called.scores = raw;
    called.grads = changed;
    called.slot = slot.value_or(0);
    if (slot && problem.score->parameters) problem.score->parameters(called);
    if (!problem.score->derivative) return;
    problem.score->derivative(called);
    for (std::int64_t r = 0; r < tile.query_count; ++r) {
        for (std::int64_t j = 0; j < tile.key_count; ++j) {
            const std::int64_t e = r * kKeyTile + j;
            if (changed[e] != static_cast<float>(grads[e])) grads[e] = static_cast<T>(changed[e]);
        }
    }
}

template void change_gradients<float>(const AttentionProblem&, const TilePosition&, Visibility, const std::uint8_t*,
                                      std::optional<std::int64_t>, float*, float*);
template void change_gradients<double>(const AttentionProblem&, const TilePosition&, Visibility, const std::uint8_t*,
                                       std::optional<std::int64_t>, float*, double*);

Visibility visibility(const AttentionProblem& problem, const TilePosition& tile, std::uint8_t* attended) {
    if (!any_block(problem, tile)) return Visibility::none;
    const bool blocks_full = std::all_of(problem.blocks.begin(), problem.blocks.end(), [&](const BlockTable& blocks) {
        return blocks.kind_of(range_of(tile)) == BlockKind::full;
    });
    if (problem.allowed.empty() && blocks_full && positions_full(tile)) return Visibility::full;
    std::int64_t seen = 0;
    for (std::int64_t r = 0; r < tile.query_count; ++r) {
        const KeyRange range = tile.sequence.keys_of(tile.query_begin + r);
        for (std::int64_t j = 0; j < kKeyTile; ++j) {
            const std::int64_t key = tile.key_begin + j;
            const bool in = j < tile.key_count && key >= range.begin && key < range.end;
            attended[r * kKeyTile + j] = in ? 1 : 0;
        }
    }
    for (const TensorView& mask : problem.allowed) apply_boolean(mask, tile, attended);
    if (!blocks_full) {
        for (const BlockTable& blocks : problem.blocks) apply_blocks(blocks, tile, attended);
    }
    for (std::int64_t e = 0; e < tile.query_count * kKeyTile; ++e) seen += attended[e];
    if (seen == 0) return Visibility::none;
    return seen == tile.query_count * tile.key_count ? Visibility::full : Visibility::partial;
}

template <typename T>
void finish_scores(const AttentionProblem& problem, const TilePosition& tile, Visibility visible,
                   const std::uint8_t* attended, T* scores, T* slope, float* raw) {
    const Sequence& sequence = tile.sequence;
    const T scale = static_cast<T>(problem.scale);
    const T cap = static_cast<T>(problem.softcap);
    T alibi = 0;
    if (problem.slopes) {
        alibi = static_cast<T>(
            load_element(problem.slopes->data(), problem.slopes->dtype(),
                         sequence.batch * problem.slopes->strides()[0] + tile.head * problem.slopes->strides()[1]));
    }
    T bias[kKeyTile];
    for (std::int64_t r = 0; r < tile.query_count; ++r) {
        T* row = scores + r * kKeyTile;
        for (std::int64_t j = 0; j < tile.key_count; ++j) row[j] *= scale;
        if (cap > 0) {
            for (std::int64_t j = 0; j < tile.key_count; ++j) {
                const T t = std::tanh(row[j] / cap);
                row[j] = cap * t;
                if (slope != nullptr) slope[r * kKeyTile + j] = 1 - t * t;
            }
        } else if (slope != nullptr) {
            std::fill(slope + r * kKeyTile, slope + (r + 1) * kKeyTile, T{1});
        }
        if (problem.bias) {
            const std::int64_t step = problem.bias->strides()[3];
            const auto size = static_cast<std::int64_t>(size_of(problem.bias->dtype()));
            const std::byte* source =
                row_address(*problem.bias, sequence.batch, tile.head, sequence.query_begin + tile.query_begin + r) +
                (sequence.key_begin + tile.key_begin) * step * size;
            convert_elements(bias, dtype_of<T>, 1, source, problem.bias->dtype(), step, tile.key_count);
            for (std::int64_t j = 0; j < tile.key_count; ++j) row[j] += bias[j];
        }
        if (problem.slopes) {
            const std::int64_t position = tile.query_begin + r + sequence.query_offset;
            for (std::int64_t j = 0; j < tile.key_count; ++j) {
                row[j] -= alibi * std::fabs(static_cast<T>(position - tile.key_begin - j));
            }
        }
    }
    if (problem.score != nullptr) change_scores(problem, tile, scores, raw);
    for (std::int64_t r = 0; r < tile.query_count; ++r) {
        T* row = scores + r * kKeyTile;
        if (visible == Visibility::partial) {
            for (std::int64_t j = 0; j < tile.key_count; ++j) {
                if (attended[r * kKeyTile + j] == 0) row[j] = -std::numeric_limits<T>::infinity();
            }
        }
        std::fill(row + tile.key_count, row + kKeyTile, -std::numeric_limits<T>::infinity());
    }
}

template void finish_scores<float>(const AttentionProblem&, const TilePosition&, Visibility, const std::uint8_t*,
                                   float*, float*, float*);
template void finish_scores<double>(const AttentionProblem&, const TilePosition&, Visibility, const std::uint8_t*,
                                    double*, double*, float*);

}  // namespace attend::kernels::cpu
