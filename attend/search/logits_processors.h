/// @file
/// What Transformers does to scores before a token is chosen (huggingface/transformers 4.57,
/// generation/logits_process.py).
#pragma once

#include <attend/search/best_logits.h>
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
    /// Whether they only ban tokens or force some, which the best logits can tell as well as all of them.
    bool suit_best_logits() const { return options_.repetition_penalty == 1.0 && !options_.renormalize_logits; }
    /// The same for the best logits, some of which are taken out, and their sum. Where suit_best_logits().
    void process(const std::vector<std::int64_t>& tokens, BestLogits& row) const;
    /// How many tokens they may ban behind so many.
    std::int64_t most_banned(std::int64_t length) const;
    /// Whether the token behind so many is one of forced ones.
    bool forces(std::int64_t length) const { return forces_first(length) || forces_last(length); }
    /// Whether a token ends a sequence.
    bool is_end(std::int64_t token) const;

private:
    bool forces_first(std::int64_t length) const { return options_.forced_first && length == 1; }
    bool forces_last(std::int64_t length) const {
        return !options_.forced_last.empty() && length == options_.max_length - 1;
    }
    void penalize_repetition(const std::vector<std::int64_t>& tokens, float* logits, std::int64_t count,
                             double normalizer) const;
    template <typename Row>
    void ban_and_force(const std::vector<std::int64_t>& tokens, Row& row) const;
    template <typename Row>
    void ban_ngrams(const std::vector<std::int64_t>& tokens, Row& row) const;
    template <typename Row>
    void ban_words(const std::vector<std::int64_t>& tokens, Row& row) const;

    const GenerationOptions& options_;
};

}  // namespace attend::search
