/// @file
/// Greedy and beam search of one sequence as Transformers does it (huggingface/transformers 4.57, generate with
/// num_beams and without sampling), with its processors of scores.
#pragma once

#include <attend/core/tensor.h>
#include <attend/search/candidates.h>
#include <attend/search/generation_options.h>
#include <attend/search/logits_processors.h>
#include <attend/search/search.h>

#include <cstdint>
#include <span>
#include <vector>

namespace attend::search {

/// A hypothesis of n tokens (the end included, start and prefix not) scores log_probability / n^length_penalty. Sums
/// are float32, as there.
class GenerationSearch final : public Search {
public:
    /// @throws ValueError for options that make no search
    explicit GenerationSearch(GenerationOptions options);

    const NextStep& advance(const MutableTensorView& logits, std::span<const std::int64_t> ids) override;
    std::int64_t best_logits() const noexcept override;
    const NextStep& advance_best(std::span<const BestLogits> rows) override;
    std::int64_t rows() const noexcept override { return static_cast<std::int64_t>(live_.size()); }
    std::vector<Hypothesis> best(std::int64_t count) const override;

private:
    struct Beam {
        std::vector<std::int64_t> tokens;  // with the start
        std::vector<std::int64_t> rows;
        float sum = 0.0F;
        float score = 0.0F;  // of one that ended
    };

    std::int64_t most_candidates() const noexcept;
    bool gives_next() const noexcept;
    const NextStep& take_given();
    const NextStep& take_largest(float* logits, std::int64_t count);
    const NextStep& take_token(std::int64_t token, float logarithm);
    const NextStep& take_candidates(const std::vector<Candidate>& candidates);
    Beam continued(const Candidate& candidate) const;
    void end_unfinished(std::vector<Beam> before);
    void finish(Beam beam);
    float penalty_of(std::int64_t length) const;
    bool is_over(bool all_ended);

    GenerationOptions options_;
    LogitsProcessors processors_;
    std::vector<Beam> live_;
    std::vector<Beam> ended_;  // best first, at most num_beams
    NextStep next_;
    bool may_improve_ = true;
    std::int64_t length_ = 1;  // of live beams, with the start
};

}  // namespace attend::search
