/// @file
/// Sampling of one sequence, or of several for one source, as Transformers does it (generate with do_sample):
/// processors of scores, then temperature, top-k and top-p. Its random numbers are the library's own.
#pragma once

#include <attend/core/tensor.h>
#include <attend/search/generation_options.h>
#include <attend/search/logits_processors.h>
#include <attend/search/search.h>

#include <cstdint>
#include <span>
#include <vector>

namespace attend::search {

/// The random number for a token follows from seed, sample and place alone, so a source has the same samples in any
/// batch. Scores are those of GenerationSearch; a sample's log_probability is the model's, before any processor.
class SamplingSearch final : public Search {
public:
    /// @throws ValueError for options that make no search
    explicit SamplingSearch(GenerationOptions options);

    const NextStep& advance(const MutableTensorView& logits, std::span<const std::int64_t> ids) override;
    std::int64_t rows() const noexcept override { return static_cast<std::int64_t>(live_.size()); }
    std::vector<Hypothesis> best(std::int64_t count) const override;

private:
    struct Sample {
        std::int64_t number = 0;
        std::vector<std::int64_t> tokens = {};  // with the start
        Hypothesis found = {};
    };
    struct Chance {
        double probability = 0.0;
        std::int64_t token = 0;
    };

    std::int64_t draw(const Sample& sample, float* logits, std::int64_t count) const;
    std::vector<Chance> chances(const float* logits, std::int64_t count) const;

    GenerationOptions options_;
    LogitsProcessors processors_;
    std::vector<Sample> live_;
    std::vector<Hypothesis> ended_;
    NextStep next_;
};

}  // namespace attend::search
