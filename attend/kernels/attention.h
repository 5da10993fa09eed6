/// @file
/// What every attention kernel takes: one description of the problem, shared by the oracle and the fast paths.
///
/// For query i and key j of one sequence, head h (keys and values of head h / (heads / kv_heads)):
///
///     x_ij = scale q_i . k_j                          (softcap c: c tanh(x_ij / c))
///     s_ij = f(x_ij + bias_ij - slope_h |i + offset - j|)    f: a function of the caller, or nothing
///     p_ij = exp(s_ij) / sum_j' exp(s_ij')            over the keys j' that i attends to
///     o_i  = sum_j p_ij d_ij v_j                      d_ij = 0 or 1 / (1 - dropout)
#pragma once

#include <attend/core/element.h>
#include <attend/core/tensor.h>
#include <attend/kernels/block_mask.h>
#include <attend/kernels/mask.h>
#include <attend/kernels/score.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace attend::kernels {

/// One call of attention, checked: all views have rank 4 (slopes: 2) and a contiguous last dimension, shapes fit.
struct AttentionProblem {
    TensorView query;                          ///< [batch, heads, Lq, d]
    TensorView key;                            ///< [batch, kv_heads, Lk, d]
    TensorView value;                          ///< [batch, kv_heads, Lk, dv]
    std::span<const Sequence> sequences = {};  ///< the rows of query and key that belong together, and their mask
    std::span<const TensorView> allowed = {};  ///< bool masks, each broadcast to [batch, heads, Lq, Lk]; all must allow
    std::span<const BlockTable> blocks = {};   ///< masks by blocks, of the same rows; all must allow
    std::optional<TensorView> bias = {};       ///< floating, broadcast to [batch, heads, Lq, Lk]
    std::optional<TensorView> slopes = {};     ///< ALiBi, float32, broadcast to [batch, heads]
    double scale = 1.0;                        ///< of the scores
    double softcap = 0.0;                      ///< 0: none
    double dropout = 0.0;                      ///< probability, in [0, 1]
    std::uint64_t seed = 0;                    ///< of the dropout
    const ScoreFunction* score = nullptr;      ///< changes scores before the mask; null: none

    /// Whether backward has to go through the score function's gradients.
    bool changes_gradients() const { return score != nullptr && score->has_gradients(); }
    /// Heads of the query.
    std::int64_t heads() const { return query.shape()[1]; }
    /// The head of key and value that `head` of the query reads.
    std::int64_t kv_head(std::int64_t head) const { return head / (query.shape()[1] / key.shape()[1]); }
};

/// A tile of a sequence of the problem as a score function sees it: a ScoreTile or ScoreGradientTile without data.
template <typename Tile>
Tile tile_at(const AttentionProblem& problem, const Sequence& sequence, std::int64_t head, std::int64_t query_begin,
             std::int64_t query_count, std::int64_t key_begin, std::int64_t key_count) {
    Tile tile;
    tile.sequence = &sequence - problem.sequences.data();
    tile.batch = sequence.batch;
    tile.head = head;
    tile.query_begin = query_begin;
    tile.query_count = query_count;
    tile.key_begin = key_begin;
    tile.key_count = key_count;
    tile.query_start = sequence.query_begin;
    tile.key_start = sequence.key_begin;
    tile.query_offset = sequence.query_offset;
    return tile;
}

/// Where forward writes. Rows that no sequence covers are not written.
struct AttentionOutputs {
    MutableTensorView output;                       ///< [batch, heads, Lq, dv]
    MutableTensorView log_sum_exp;                  ///< [batch, heads, Lq], float32 or float64, natural logarithm
    std::optional<MutableTensorView> weights = {};  ///< [batch, heads, Lq, Lk], zeroed; p_ij d_ij is written
};

/// What backward reads besides the problem.
struct AttentionSaved {
    TensorView grad_output;  ///< [batch, heads, Lq, dv]
    MutableTensorView
        statistics;     ///< [batch, heads, Lq, 3]: of each row its maximum, what a logit of that weighs, delta_i
    bool adds = false;  ///< gradients of keys and values are added to what is there; rows of queries without weights,
                        ///< a maximum of -inf, are left as they are
};

/// Rows [begin, end) of one sequence and head: the unit of work that a scheduler hands out.
struct Block {
    std::int64_t sequence = 0;  ///< index among the problem's sequences
    std::int64_t head = 0;      ///< of the query; for gradients of key and value, of those
    std::int64_t begin = 0;     ///< first row
    std::int64_t end = 0;       ///< behind the last row
    std::int64_t slot = 0;      ///< its place among all blocks by (sequence, head, rows)
};

/// Probability that a weight is kept, and by what it is then multiplied.
struct Dropout {
    /// @param probability in [0, 1]
    Dropout(double probability, std::uint64_t seed);

    /// Factors d_ij of keys [key, key + count) for one query row, all indices counted within the sequence. Drawn from
    /// Philox by (seed, sequence, head, query, key), so that every tiling and every pass draws the same.
    template <typename T>
    void factors(std::int64_t sequence, std::int64_t head, std::int64_t query, std::int64_t key, std::int64_t count,
                 T* out) const;

    std::uint64_t threshold;  ///< 32-bit draws below it are dropped
    double keep_factor;       ///< 1 / (1 - probability); 0 when everything is dropped
    std::uint64_t seed;       ///< of Philox
};

extern template void Dropout::factors<float>(std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                                             float*) const;
extern template void Dropout::factors<double>(std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t,
                                              double*) const;

/// Address of row `row` (counted in the whole tensor) of batch `batch` and head `head` of a rank-4 view.
inline const std::byte* row_address(const TensorView& view, std::int64_t batch, std::int64_t head, std::int64_t row) {
    const std::int64_t offset = batch * view.strides()[0] + head * view.strides()[1] + row * view.strides()[2];
    return address_at(view.data(), offset * static_cast<std::int64_t>(size_of(view.dtype())));
}

/// The same of elements that can be written.
inline std::byte* row_address(const MutableTensorView& view, std::int64_t batch, std::int64_t head, std::int64_t row) {
    return const_cast<std::byte*>(row_address(static_cast<const TensorView&>(view), batch, head, row));
}

}  // namespace attend::kernels
