/// @file
/// Scores changed by a function of yours: AttentionOptions::score.
///
///     const ScoreFunction louder{.change = [](const ScoreTile& tile) {
///         for (std::int64_t i = 0; i < tile.query_count; ++i) {
///             for (std::int64_t j = 0; j < tile.key_count; ++j) tile.score(i, j) *= 2.0F;
///         }
///     }};
///
/// Its gradients, and those of what it has learned: ScoreFunction. To skip pairs rather than give them weight 0:
/// BlockMask.
#pragma once

#include <attend/core/tensor.h>
#include <attend/kernels/score.h>

#include <cstdint>

namespace attend {

struct AttentionOptions;

/// Slots of a call of attention_backward with the same inputs and options: every tile that it gives to
/// ScoreFunction::parameters has a slot in [0, score_slots()). Some may stay without a call. Depends on shapes, dtype,
/// options and instruction set, never on threads. @throws ShapeError, DTypeError, ValueError as attention
std::int64_t score_slots(const TensorView& query, const TensorView& key, const TensorView& value,
                         const AttentionOptions& options);

}  // namespace attend
