/// @file
/// Which words of a translation come from which of its source, read from attention weights.
#pragma once

#include <attend/core/tensor.h>
#include <attend/text/tokenizer.h>

#include <cstdint>
#include <span>
#include <vector>

namespace attend {

/// One token or word of the source and one of the target that belong together.
struct AlignmentLink {
    std::int64_t source = 0;  ///< index
    std::int64_t target = 0;  ///< index
    double weight = 0.0;      ///< share of the target's attention, 0 to 1
};

/// Words of two texts, and which belong together.
struct WordAlignment {
    std::vector<text::TextRange> source;  ///< bytes of each word in the source
    std::vector<text::TextRange> target;  ///< bytes of each word in the translation
    std::vector<AlignmentLink> links;     ///< between indices of the two, by target, then source
};

/// Shares of attention from which on a link is told; the largest of each target is told in any case.
inline constexpr double kLeastAlignment = 0.2;

/// For each row the columns that hold at least kLeastAlignment of its weight, and its largest, by row, then column.
/// @param weights float32 [target, source] @throws ShapeError, DTypeError
std::vector<AlignmentLink> strong_links(const TensorView& weights);

/// Weights between words: a source word has the sum of its tokens', a target word the mean over its own. A token of
/// several words is one of each, and shares its weight among those of the source.
/// @param weights float32 [target tokens, source tokens]; tokens of no word (the end) are left out
/// @param source_tokens, target_tokens bytes of the first tokens @param source_words, target_words rising
/// @return float32 [target words, source words] @throws ShapeError, DTypeError
Tensor word_weights(const TensorView& weights, std::span<const text::TextRange> source_tokens,
                    std::span<const text::TextRange> target_tokens, std::span<const text::TextRange> source_words,
                    std::span<const text::TextRange> target_words);

}  // namespace attend
