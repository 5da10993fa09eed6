/// @file
/// Beam search of one sequence, as Marian does it (marian-nmt, src/translator): greedy search is a beam of one.
#pragma once

#include <attend/core/tensor.h>
#include <attend/search/candidates.h>
#include <attend/search/search.h>

#include <cstdint>
#include <span>
#include <vector>

namespace attend::search {

/// Options of BeamSearch.
struct BeamSearchOptions {
    std::int64_t beam_size = 1;   ///< hypotheses at first; each one that ends makes the beam narrower by one
    std::int64_t max_tokens = 1;  ///< of a hypothesis, its end included: hypotheses that are as long end as they are
    std::int64_t end = 0;         ///< token that ends a hypothesis
    std::int64_t banned = -1;     ///< token that is never taken (the unknown one); -1: none
    double length_penalty = 0.0;  ///< Marian's normalize: see BeamSearch
    double word_penalty = 0.0;    ///< taken off for each token: see BeamSearch
    std::vector<std::int64_t> prefix = {};  ///< tokens that every hypothesis begins with; they cost nothing
    bool log_probabilities = false;         ///< also with a beam of one, whose choice does not need them
};

/// A hypothesis of n tokens scores (log_probability - word_penalty n) / n^length_penalty.
class BeamSearch final : public Search {
public:
    /// @throws ValueError for a beam or a longest length below 1
    explicit BeamSearch(const BeamSearchOptions& options);

    const NextStep& advance(const MutableTensorView& logits, std::span<const std::int64_t> ids) override;
    std::int64_t rows() const noexcept override { return static_cast<std::int64_t>(live_.size()); }
    std::vector<Hypothesis> best(std::int64_t count) const override;

private:
    struct Live {
        double log_probability = 0.0;
        std::int64_t step = -1;  // its last choice; -1: none yet
    };
    struct Choice {  // one token of one hypothesis; the search grid
        std::int64_t parent = -1;
        std::int64_t row = 0;
        std::int64_t token = 0;
    };
    struct Ended {
        double score = 0.0;
        double log_probability = 0.0;
        std::int64_t step = 0;
    };

    const NextStep& take_given();
    std::vector<Candidate> find_candidates(float* logits, std::int64_t count, std::int64_t banned_column) const;

    BeamSearchOptions options_;
    std::vector<Live> live_;
    std::vector<Choice> choices_;
    std::vector<Ended> ended_;
    NextStep next_;
    std::int64_t width_ = 1;
    std::int64_t length_ = 0;
};

}  // namespace attend::search
