#include <attend/tasks/alignment.h>

#include <attend/core/error.h>

#include <algorithm>
#include <string>

namespace attend {

namespace {

constexpr const char* kOperation = "alignment";

void check_weights(const TensorView& weights) {
    if (weights.dtype() != DType::float32) {
        throw DTypeError(kOperation, "expected weights of float32, found " + std::string(name_of(weights.dtype())));
    }
    if (weights.rank() != 2) {
        throw ShapeError(kOperation, "expected weights of shape [target, source], found " + to_string(weights.shape()));
    }
}

/// The words that a token shares a byte with: its own first byte may be the space before, and it may hold several.
struct WordsOfToken {
    std::int64_t begin = 0;  ///< index of the first
    std::int64_t end = 0;    ///< behind the last
};

std::vector<WordsOfToken> words_of(std::span<const text::TextRange> tokens, std::span<const text::TextRange> words) {
    std::vector<WordsOfToken> found;
    for (const text::TextRange& token : tokens) {
        const auto first = std::upper_bound(words.begin(), words.end(), token.begin,
                                            [](std::int64_t at, const text::TextRange& w) { return at < w.end; });
        auto last = first;
        while (last != words.end() && last->begin < token.end && token.begin < token.end) ++last;
        found.push_back({first - words.begin(), last - words.begin()});
    }
    return found;
}

}  // namespace

std::vector<AlignmentLink> strong_links(const TensorView& weights) {
    check_weights(weights);
    std::vector<AlignmentLink> links;
    for (std::int64_t t = 0; t < weights.size(0); ++t) {
        std::int64_t largest = 0;
        for (std::int64_t s = 1; s < weights.size(1); ++s) {
            if (weights.at<float>({t, s}) > weights.at<float>({t, largest})) largest = s;
        }
        for (std::int64_t s = 0; s < weights.size(1); ++s) {
            const double weight = weights.at<float>({t, s});
            if (weight >= kLeastAlignment || (s == largest && weight > 0.0)) links.push_back({s, t, weight});
        }
    }
    return links;
}

Tensor word_weights(const TensorView& weights, std::span<const text::TextRange> source_tokens,
                    std::span<const text::TextRange> target_tokens, std::span<const text::TextRange> source_words,
                    std::span<const text::TextRange> target_words) {
    check_weights(weights);
    if (weights.size(0) < static_cast<std::int64_t>(target_tokens.size()) ||
        weights.size(1) < static_cast<std::int64_t>(source_tokens.size())) {
        throw ShapeError(kOperation, "expected weights of at least [" + std::to_string(target_tokens.size()) + ", " +
                                         std::to_string(source_tokens.size()) + "], found " +
                                         to_string(weights.shape()));
    }
    const std::vector<WordsOfToken> rows = words_of(target_tokens, target_words);
    const std::vector<WordsOfToken> columns = words_of(source_tokens, source_words);
    Tensor result({static_cast<std::int64_t>(target_words.size()), static_cast<std::int64_t>(source_words.size())});
    std::vector<float> tokens(target_words.size(), 0.0F);
    for (const WordsOfToken& row : rows) {
        for (std::int64_t w = row.begin; w < row.end; ++w) tokens[static_cast<std::size_t>(w)] += 1.0F;
    }
    for (std::size_t t = 0; t < rows.size(); ++t) {
        for (std::size_t s = 0; s < columns.size(); ++s) {
            const float weight = weights.at<float>({static_cast<std::int64_t>(t), static_cast<std::int64_t>(s)});
            const float share = weight / static_cast<float>(columns[s].end - columns[s].begin);
            for (std::int64_t row = rows[t].begin; row < rows[t].end; ++row) {
                for (std::int64_t column = columns[s].begin; column < columns[s].end; ++column) {
                    result.data<float>()[row * result.size(1) + column] +=
                        share / tokens[static_cast<std::size_t>(row)];
                }
            }
        }
    }
    return result;
}

}  // namespace attend
