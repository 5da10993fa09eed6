/// @file
/// A Transformer that turns one sequence of ids into another: embeddings, the encoder's and the decoder's blocks, the
/// output layer. One class for all families; what differs is in its parts.
#pragma once

#include <attend/core/tensor.h>
#include <attend/nn/block.h>
#include <attend/nn/linear.h>
#include <attend/nn/positions.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace attend::nn {

/// Rows for ids, float32 or int8, times a factor.
struct EmbeddingRows {
    TensorView rows = {};                    ///< [size, d], contiguous: float32 or int8
    float factor = 1.0F;                     ///< of every number
    std::shared_ptr<const void> owner = {};  ///< keeps the rows; may be null
};

/// What an EncoderDecoder is made of.
struct EncoderDecoderParts {
    EmbeddingRows source = {};                                   ///< of the encoder
    EmbeddingRows target = {};                                   ///< of the decoder
    SinusoidalLayout positions = SinusoidalLayout::interleaved;  ///< added to both
    std::vector<Block> encoder = {};                             ///< from the first to the last
    std::vector<Block> decoder = {};                             ///< from the first to the last
    Linear output = {};                                          ///< from the decoder's rows to logits
};

/// Where a decoder stands: rows for each of n sources, one or, in a beam, several.
struct DecoderState {
    std::vector<ProjectedMemory> memory;   ///< of each block, [1, all source tokens, d]
    std::vector<Tensor> cells;             ///< of each block with a recurrence, [rows, d]
    std::vector<std::int64_t> starts;      ///< [n + 1], where each source begins in the memory
    std::vector<std::int64_t> row_starts;  ///< [n + 1], where each source's rows begin
    std::int64_t position = 0;             ///< of the next token
};

/// Attention weights on their way out, for who wants to look at them.
struct AttentionRecord {
    bool last_only = false;       ///< of the last block alone
    std::vector<Tensor> weights;  ///< of each block, or the last, [1, heads, all queries, all keys]
};

/// The model.
class EncoderDecoder {
public:
    /// @throws ShapeError, ValueError unless the parts fit together
    explicit EncoderDecoder(EncoderDecoderParts parts);

    /// The encoder's rows, [1, all tokens, d], of sources that lie one after the other. Each has the same bits as
    /// alone.
    /// @param ids of all tokens @param starts [n + 1], rising from 0 to their number @throws ValueError
    /// @param record receives the weights of self-attention; null: they are not computed
    Tensor encode(std::span<const std::int64_t> ids, const std::vector<std::int64_t>& starts,
                  AttentionRecord* record = nullptr) const;
    /// A decoder before its first token, with one row for each source.
    DecoderState start(const Tensor& encoded, std::vector<std::int64_t> starts) const;
    /// The decoder's rows [1, rows, d] for the next position. @param previous the last token of each row; -1: none, a
    /// row of zeros takes its embedding's place @param record receives the weights of cross attention; null: they are
    /// not computed @throws ValueError
    Tensor step(DecoderState& state, std::span<const std::int64_t> previous, AttentionRecord* record = nullptr) const;
    /// Chooses the rows to go on with. @param parents the row that each new one continues, source by source
    /// @param counts new rows of each source; sources without any leave the batch @throws ValueError
    void choose(DecoderState& state, std::span<const std::int64_t> parents, std::span<const std::int64_t> counts) const;

    /// The output layer: logits of all target tokens.
    const Linear& output() const noexcept { return parts_.output; }
    /// Width of the rows.
    std::int64_t d_model() const noexcept { return parts_.output.in_features(); }
    /// Tokens of the source.
    std::int64_t source_size() const noexcept { return parts_.source.rows.shape()[0]; }
    /// Tokens of the target.
    std::int64_t target_size() const noexcept { return parts_.output.out_features(); }

private:
    TensorView positions(std::int64_t first, std::int64_t count, Tensor& made) const;

    EncoderDecoderParts parts_;
    Tensor positions_;  // of the first ones; others are made when they are asked for
};

}  // namespace attend::nn
