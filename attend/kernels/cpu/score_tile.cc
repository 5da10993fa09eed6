#include <attend/core/element.h>
#include <attend/kernels/cpu/score_tile.h>

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

}  // namespace

Visibility visibility(const AttentionProblem& problem, const TilePosition& tile, std::uint8_t* attended) {
    if (problem.allowed.empty() && positions_full(tile)) return Visibility::full;
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
    for (std::int64_t e = 0; e < tile.query_count * kKeyTile; ++e) seen += attended[e];
    if (seen == 0) return Visibility::none;
    return seen == tile.query_count * tile.key_count ? Visibility::full : Visibility::partial;
}

template <typename T>
void finish_scores(const AttentionProblem& problem, const TilePosition& tile, Visibility visible,
                   const std::uint8_t* attended, T* scores, T* slope) {
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
        if (visible == Visibility::partial) {
            for (std::int64_t j = 0; j < tile.key_count; ++j) {
                if (attended[r * kKeyTile + j] == 0) row[j] = -std::numeric_limits<T>::infinity();
            }
        }
        std::fill(row + tile.key_count, row + kKeyTile, -std::numeric_limits<T>::infinity());
    }
}

template void finish_scores<float>(const AttentionProblem&, const TilePosition&, Visibility, const std::uint8_t*,
                                   float*, float*);
template void finish_scores<double>(const AttentionProblem&, const TilePosition&, Visibility, const std::uint8_t*,
                                    double*, double*);

}  // namespace attend::kernels::cpu
