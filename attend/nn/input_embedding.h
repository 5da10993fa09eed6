/// @file
/// What becomes of ids before the first block: rows of a table times a factor, positions, kinds of tokens, a norm.
#pragma once

#include <attend/core/tensor.h>
#include <attend/dense/packed_matrix.h>
#include <attend/nn/embedding.h>
#include <attend/nn/norm.h>
#include <attend/nn/positions.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace attend::nn {

/// Rows for ids, float32 or int8, times a factor.
struct EmbeddingRows {
    TensorView rows = {};                    ///< [size, d], contiguous: float32 or int8; or without elements, and
    PackedMatrix packed = {};                ///< rows of an output layer, as nn::Embedding has them
    float factor = 1.0F;                     ///< of every number (sqrt(d) in Marian and, by configuration, BART)
    std::shared_ptr<const void> owner = {};  ///< keeps the rows; may be null

    /// [size, d].
    Shape shape() const { return rows.numel() > 0 ? rows.shape() : Shape{packed.out_features(), packed.in_features()}; }
};

/// What an InputEmbedding is made of.
struct InputEmbeddingParts {
    EmbeddingRows rows = {};                    ///< for ids
    Positions positions = {};                   ///< added, unless there are none
    std::optional<Embedding> token_types = {};  ///< BERT: rows for the kind of each token, added; without kinds row 0
    std::optional<Norm> norm = {};              ///< of the sum (BERT, BART)
};

/// norm(factor row(id) + position + row(kind)), float32.
class InputEmbedding {
public:
    /// Of nothing.
    InputEmbedding() = default;
    /// @throws ShapeError unless the parts fit together
    explicit InputEmbedding(InputEmbeddingParts parts);

    /// Rows [1, all tokens, d] of sequences that lie one after the other, each from position 0 on. @param ids of all
    /// tokens @param starts [n + 1], rising from 0 to their number @param kinds of all tokens, or none @throws
    /// ValueError
    Tensor forward(std::span<const std::int64_t> ids, std::span<const std::int64_t> starts,
                   std::span<const std::int64_t> kinds = {}) const;
    /// Rows [1, n, d] of one token of each sequence, all at the same position. @param ids -1: a row of zeros takes its
    /// place @throws ValueError
    Tensor step(std::span<const std::int64_t> ids, std::int64_t position) const;

    /// Width of the rows.
    std::int64_t d_model() const { return parts_.rows.shape()[1]; }
    /// How many positions there are; none: no end.
    std::optional<std::int64_t> positions() const { return parts_.positions.count(); }
    /// How many ids there are.
    std::int64_t size() const { return parts_.rows.shape()[0]; }

private:
    void add_row(std::int64_t id, float* out) const;
    void add_kind(std::int64_t kind, float* out) const;

    InputEmbeddingParts parts_;
    Tensor kinds_;  // float32 [kinds, d]
};

}  // namespace attend::nn
