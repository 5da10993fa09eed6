/// @file
/// Relative positions in buckets, a learned bias of the scores for each head (Raffel et al. 2020, "Exploring the Limits
/// of Transfer Learning with a Unified Text-to-Text Transformer", section 2.1: T5).
#pragma once

#include <attend/core/tensor.h>
#include <attend/nn/module.h>

#include <cstdint>
#include <span>

namespace attend::nn {

/// Options of RelativePositions.
struct RelativePositionOptions {
    bool bidirectional = true;        ///< keys before and after have buckets of their own; false: those after have none
    std::int64_t max_distance = 128;  ///< from which on all share the last bucket
};

/// The bucket of a key that is `distance` behind its query (negative: before it). Half of the buckets of a direction
/// are one distance each, the others grow with its logarithm. Computed in float32, as T5's models were trained.
/// @throws ValueError where buckets of a direction are fewer than 2, or max_distance is not above half of them
std::int64_t relative_bucket(std::int64_t distance, std::int64_t buckets, const RelativePositionOptions& options = {});

/// A bias that depends on the distance of query and key alone: one number for each distance is kept, and a view reads
/// it as rows that begin one number earlier each.
class RelativeBias {
public:
    /// @param values float32 [sequences, heads, Lq + Lk - 1], from the last query's distance to the first key on
    /// @throws ShapeError for others
    RelativeBias(Tensor values, std::int64_t queries, std::int64_t keys);

    /// [sequences, heads, Lq, Lk], what AttentionOptions::bias takes; no copy.
    TensorView view() const;

private:
    Tensor values_;
    std::int64_t queries_;
    std::int64_t keys_;
};

/// The learned table, [buckets, heads].
class RelativePositions {
public:
    /// @param state `weight` [buckets, heads] (T5's relative_attention_bias) @throws ValueError, ShapeError,
    /// DTypeError; ValueError where buckets of a direction are fewer than 2, or max_distance is not above half of them
    explicit RelativePositions(const StateDict& state, const RelativePositionOptions& options = {});

    /// The bias of queries at query_offset, query_offset + 1, ... to keys at 0, 1, ...: [1, heads, Lq, Lk]. Packed
    /// sequences (Mask::packed) take that of all rows, since only distances count. Memory O(heads (Lq + Lk)).
    /// @throws ValueError for negative lengths
    RelativeBias bias(std::int64_t queries, std::int64_t keys, std::int64_t query_offset = 0) const;
    /// The same with an offset for each sequence: [query_offsets.size(), heads, Lq, Lk]. @throws ValueError
    RelativeBias bias(std::int64_t queries, std::int64_t keys, std::span<const std::int64_t> query_offsets) const;

    /// Heads of the table.
    std::int64_t num_heads() const { return weight_.size(1); }
    /// `weight`.
    StateDict state_dict() const { return {{"weight", weight_}}; }

private:
    Tensor weight_;  // float32
    RelativePositionOptions options_;
};

}  // namespace attend::nn
