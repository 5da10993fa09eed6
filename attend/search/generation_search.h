/// @file
/// Greedy and beam search of one sequence as Transformers does it (huggingface/transformers 4.57, generate with
/// num_beams and without sampling), with its processors of scores.
#pragma once

#include <attend/core/tensor.h>
#include <attend/search/search.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace attend::search {

/// When a beam search is over before its longest length.
enum class EarlyStopping : std::uint8_t {
    heuristic,  ///< num_beams have ended, and no live one would be better at its present length (early_stopping=False)
    yes,        ///< num_beams have ended (True)
    never,      ///< none could be better at any length ("never")
};

/// Options of GenerationSearch, by the names of GenerationConfig. Lengths count the start token, as there.
struct GenerationOptions {
    std::int64_t num_beams = 1;                               ///< 1: greedy
    std::int64_t max_length = 20;                             ///< of start, tokens and end
    std::int64_t min_length = 0;                              ///< no end before
    double length_penalty = 1.0;                              ///< see GenerationSearch
    EarlyStopping early_stopping = EarlyStopping::heuristic;  ///< see there
    std::int64_t start = 0;                                   ///< decoder_start_token_id
    std::vector<std::int64_t> ends = {};                      ///< eos_token_id
    std::vector<std::vector<std::int64_t>> bad_words = {};    ///< bad_words_ids: sequences that must not appear
    std::int64_t no_repeat_ngram_size = 0;                    ///< n: no n tokens appear twice; 0: no limit
    double repetition_penalty = 1.0;                ///< scores of tokens that were there: s p if s < 0, else s / p
    std::optional<std::int64_t> forced_first = {};  ///< forced_bos_token_id
    std::vector<std::int64_t> forced_last = {};     ///< forced_eos_token_id, at the longest length
    bool renormalize_logits = false;                ///< scores are log-probabilities again after all of the above
};

/// A hypothesis of n tokens (the end included, the start not) scores log_probability / n^length_penalty. Sums are
/// float32, as there.
class GenerationSearch final : public Search {
public:
    /// @throws ValueError for options that make no search
    explicit GenerationSearch(GenerationOptions options);

    const NextStep& advance(const MutableTensorView& logits, std::span<const std::int64_t> ids) override;
    std::int64_t rows() const noexcept override { return static_cast<std::int64_t>(live_.size()); }
    std::vector<Hypothesis> best(std::int64_t count) const override;

private:
    struct Beam {
        std::vector<std::int64_t> tokens;  // with the start
        std::vector<std::int64_t> rows;
        float sum = 0.0F;
        float score = 0.0F;  // of one that ended
    };
    struct Candidate {
        float sum = 0.0F;
        std::int64_t row = 0;
        std::int64_t token = 0;
    };

    void process(const Beam& beam, float* scores, std::int64_t count) const;
    const NextStep& take_largest(float* scores, std::int64_t count);
    std::vector<Candidate> largest(const float* scores, std::int64_t count) const;
    bool ends_with(std::int64_t token) const;
    Beam continued(const Candidate& candidate) const;
    void finish(Beam beam);
    bool is_over(bool all_ended);

    GenerationOptions options_;
    std::vector<Beam> live_;
    std::vector<Beam> ended_;  // best first, at most num_beams
    NextStep next_;
    bool may_improve_ = true;
    std::int64_t length_ = 1;  // of live beams, with the start
};

}  // namespace attend::search
