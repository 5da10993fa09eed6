/// @file
/// Scores changed by a function of the caller: what the function sees, and how it is called.
///
/// The functions work on tiles, so that one call pays for many pairs and its loops can be vectorized. Which tiles a
/// call of attention makes is its own affair (other instruction sets, dtypes and passes make other ones); a function
/// must treat each pair by itself, from its place and its score.
#pragma once

#include <cstdint>
#include <functional>

namespace attend {

/// Which pairs of a query and a key a tile holds. Queries and keys are counted within their sequence: an entry of the
/// batch, or a segment of packed sequences.
struct ScorePlace {
    std::int64_t sequence = 0;      ///< index of the sequence, as Mask::key_lengths and Mask::packed count
    std::int64_t batch = 0;         ///< first index of the tensors; 0 where sequences are packed
    std::int64_t head = 0;          ///< of the query
    std::int64_t query_begin = 0;   ///< first query
    std::int64_t query_count = 0;   ///< queries
    std::int64_t key_begin = 0;     ///< first key
    std::int64_t key_count = 0;     ///< keys
    std::int64_t query_start = 0;   ///< row of the tensor of queries where the sequence begins; 0 unless packed
    std::int64_t key_start = 0;     ///< the same of the keys; over a cache, its padding on the left
    std::int64_t query_offset = 0;  ///< query i stands at position i + query_offset among the keys, see Mask
};

/// A tile of scores to be changed in place. Rows lie queries first or keys first, so both strides count.
struct ScoreTile : ScorePlace {
    float* scores = nullptr;        ///< of the first query and the first key
    std::int64_t query_stride = 0;  ///< floats from one query to the next
    std::int64_t key_stride = 0;    ///< floats from one key to the next

    /// The score of query query_begin + i and key key_begin + j.
    float& score(std::int64_t i, std::int64_t j) const { return scores[i * query_stride + j * key_stride]; }
};

/// A tile of backward: the scores before the change, and gradients. Pairs without a gradient, hidden ones among them,
/// have score 0 and gradient 0.
struct ScoreGradientTile : ScorePlace {
    const float* scores = nullptr;  ///< before the change, of the first query and the first key
    float* grads = nullptr;         ///< with respect to the changed scores
    std::int64_t query_stride = 0;  ///< floats from one query to the next, of both
    std::int64_t key_stride = 0;    ///< floats from one key to the next, of both
    std::int64_t slot = 0;          ///< see ScoreFunction::parameters

    /// The score, before the change, of query query_begin + i and key key_begin + j.
    float score(std::int64_t i, std::int64_t j) const { return scores[i * query_stride + j * key_stride]; }
    /// The gradient of the same pair.
    float& grad(std::int64_t i, std::int64_t j) const { return grads[i * query_stride + j * key_stride]; }
};

/// A function of the caller that changes scores (Dong et al., "Flex Attention", 2024), and its gradients.
///
/// All three are called from several threads at once, for different tiles; they may compute attention themselves, on
/// other options. An exception that they throw leaves attention. Scores are float32 in natural units whatever the dtype
/// of the tensors: cap(scale Q K^T) + bias + ALiBi, before the mask, so that a tile may hold pairs which the mask hides
/// (of arbitrary score; what becomes of them is discarded). In float64 a score that is changed is rounded to float32,
/// one that is left alone is not.
struct ScoreFunction {
    /// Changes the scores of a tile in place; -inf gives weight 0 (arithmetic, as with a bias of -inf: the key and the
    /// value are still read; a BlockMask hides them). Called once or more for each visible pair, in forward and again
    /// in backward: it must do the same each time.
    std::function<void(const ScoreTile& tile)> change;
    /// Turns grads in place from the gradient with respect to changed scores into that with respect to scores before
    /// the change: grad *= d changed / d score. None: the derivative is 1, as of what is added to scores or masks them.
    /// May be called more than once for a pair.
    std::function<void(const ScoreGradientTile& tile)> derivative = {};
    /// Gradients of what the function has learned: called by backward exactly once for each visible pair, with the
    /// gradient with respect to changed scores, which it must leave alone. Calls with the same slot never run at the
    /// same time and come in an order that shapes and options fix. A caller that keeps a sum for each of the
    /// score_slots() slots, and adds these up in order, has the same bits for any number of threads.
    std::function<void(const ScoreGradientTile& tile)> parameters = {};

    /// Whether backward has to call anything besides `change`.
    bool has_gradients() const { return derivative || parameters; }
};

}  // namespace attend
