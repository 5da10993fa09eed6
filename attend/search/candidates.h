/// @file
/// The best of many candidates, by scores that are logits plus something: what every search asks for at every step.
#pragma once

#include <attend/kernels/cpu/row_kernels.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace attend::search {

/// One candidate of one row of logits.
struct Candidate {
    double value = 0.0;       ///< what candidates are ordered by
    std::int64_t row = 0;     ///< of the logits
    std::int64_t column = 0;  ///< in it
};

/// Keeps the `most` best, best first; of equal ones those that were offered first.
class Candidates {
public:
    /// @param most at least 1
    explicit Candidates(std::int64_t most) : most_(static_cast<std::size_t>(std::max<std::int64_t>(most, 1))) {}

    /// Offers a row from its first column to its last. NaN and minus infinity are no candidates. Nearly all columns are
    /// passed over a vector at a time. @param value of a logit, about x + offset (within 1e-5 of the magnitudes)
    template <typename Value>
    void offer(const float* logits, std::int64_t count, std::int64_t row, double offset, const Value& value) {
        const auto& kernels = kernels::cpu::row_kernels();
        float threshold = threshold_of(offset);
        for (std::int64_t c = kernels.next_above(logits, 0, count, threshold); c < count;
             c = kernels.next_above(logits, c + 1, count, threshold)) {
            if (offer({value(logits[c]), row, c})) threshold = threshold_of(offset);
        }
    }

    /// Offers one. @return whether it is among the best so far
    bool offer(const Candidate& candidate) {
        const auto better = [](const Candidate& a, const Candidate& b) { return a.value > b.value; };
        if (!(candidate.value > (full() ? kept_.back().value : kLeast))) return false;
        if (full()) kept_.pop_back();
        kept_.insert(std::upper_bound(kept_.begin(), kept_.end(), candidate, better), candidate);
        return true;
    }

    /// Whether there are as many as are kept.
    bool full() const noexcept { return kept_.size() == most_; }

    /// Best first.
    const std::vector<Candidate>& kept() const noexcept { return kept_; }

private:
    static constexpr double kLeast = -std::numeric_limits<double>::infinity();

    /// No logit up to it can be among the best.
    float threshold_of(double offset) const {
        if (!full()) return -std::numeric_limits<float>::infinity();
        const double worst = kept_.back().value;
        const double slack = 1e-5 * (1.0 + std::fabs(worst) + std::fabs(offset));
        return static_cast<float>(worst - offset - slack);
    }

    std::size_t most_;
    std::vector<Candidate> kept_;
};

}  // namespace attend::search
