/// @file
/// A Transformer that turns one sequence of ids into another: embeddings, the encoder's and the decoder's blocks, the
/// output layer. One class for all families; what differs is in its parts.
#pragma once

#include <attend/core/tensor.h>
#include <attend/nn/input_embedding.h>
#include <attend/nn/linear.h>
#include <attend/nn/transformer.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace attend::nn {

/// What an EncoderDecoder is made of.
struct EncoderDecoderParts {
    InputEmbeddingParts source;     ///< of the encoder
    InputEmbeddingParts target;     ///< of the decoder
    TransformerStackParts encoder;  ///< blocks without cross attention
    TransformerStackParts decoder;  ///< blocks with cross attention, and self-attention or a recurrence
    Linear output;                  ///< from the decoder's rows to logits
    /// The decoder's block whose cross attention learned alignments, in its first head; without it the last.
    std::optional<std::int64_t> alignment_block = {};
};

/// Attention weights of the decoder on their way out; null: they are not computed.
struct DecoderRecords {
    AttentionRecord* self = nullptr;   ///< of self-attention: [rows, heads, 1, keys]; nothing of a recurrence
    AttentionRecord* cross = nullptr;  ///< of cross attention: [1, heads, rows, source tokens]
};

/// Where a decoder stands: rows for each of n sources, one or, in a beam, several.
struct DecoderState {
    std::vector<ProjectedMemory> memory;   ///< of each block, [1, all source tokens, d]
    StackState blocks;                     ///< caches and recurrences of all rows
    std::vector<std::int64_t> starts;      ///< [n + 1], where each source begins in the memory
    std::vector<std::int64_t> row_starts;  ///< [n + 1], where each source's rows begin
    std::int64_t position = 0;             ///< of the next token
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
    /// A decoder before its first token, with one row for each source. @param encoded as encode() gave it @param starts
    /// as it was given @throws ShapeError, ValueError
    DecoderState start(const Tensor& encoded, std::vector<std::int64_t> starts) const;
    /// The decoder's rows [1, rows, d] for the next position. @param previous the last token of each row; -1: none, a
    /// row of zeros takes its embedding's place @throws ValueError, which leaves the state as it was
    Tensor step(DecoderState& state, std::span<const std::int64_t> previous, const DecoderRecords& records = {}) const;
    /// Chooses the rows to go on with. @param parents the row that each new one continues, source by source, of which
    /// it is one
    /// @param counts new rows of each source; sources without any leave the batch @throws ValueError
    void choose(DecoderState& state, std::span<const std::int64_t> parents, std::span<const std::int64_t> counts) const;

    /// The output layer: logits of all target tokens.
    const Linear& output() const noexcept { return output_; }
    /// The decoder's block that tells alignments.
    std::int64_t alignment_block() const noexcept { return alignment_block_; }
    /// Width of the rows.
    std::int64_t d_model() const noexcept { return output_.in_features(); }
    /// Tokens of the source.
    std::int64_t source_size() const noexcept { return source_.size(); }
    /// Positions of source tokens; none: no end.
    std::optional<std::int64_t> source_positions() const { return source_.positions(); }
    /// Positions of target tokens; none: no end.
    std::optional<std::int64_t> target_positions() const { return target_.positions(); }
    /// Tokens of the target.
    std::int64_t target_size() const noexcept { return output_.out_features(); }

private:
    InputEmbedding source_;
    InputEmbedding target_;
    Transformer network_;
    Linear output_;
    std::int64_t alignment_block_;
};

}  // namespace attend::nn
