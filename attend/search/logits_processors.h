/// @file
/// What Transformers does to scores before a token is chosen (huggingface/transformers 4.57,
/// generation/logits_process.py).
#pragma once

#include <attend/search/generation_options.h>

#include <cstdint>
#include <vector>

namespace attend::search {

/// The processors that some options ask for, in the order of Transformers' list: repetition, n-grams, bad words,
/// shortest length, forced and suppressed tokens, normalisation. They refer to the options.
class LogitsProcessors {
public:
    /// @param options stay where they are as long as this object
    explicit LogitsProcessors(const GenerationOptions& options) : options_(options) {}

    /// Whether there are any.
    bool any() const;
    /// Changes logits in place. A score is a logit less the normalizer, so that only the few that change are touched.
    /// @param tokens so far, with the start @param logits of all tokens, [count] @return the normalizer of what is
    /// there
    double process(const std::vector<std::int64_t>& tokens, float* logits, std::int64_t count, double normalizer) const;
    /// Whether a token ends a sequence.
    bool is_end(std::int64_t token) const;

private:
    void penalize_repetition(const std::vector<std::int64_t>& tokens, float* logits, std::int64_t count,
                             double normalizer) const;
    void ban_ngrams(const std::vector<std::int64_t>& tokens, float* logits, std::int64_t count) const;
    void ban_words(const std::vector<std::int64_t>& tokens, float* logits, std::int64_t count) const;

    const GenerationOptions& options_;
};

}  // namespace attend::search
