#include <attend/core/error.h>
#include <attend/kernels/cpu/row_kernels.h>
#include <attend/search/beam_search.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

namespace attend::search {

namespace {

constexpr const char* kOperation = "BeamSearch";
constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// Column of a token, or -1.
std::int64_t column_of(std::int64_t token, std::span<const std::int64_t> ids, std::int64_t count) {
    if (token < 0) return -1;
    if (ids.empty()) return token < count ? token : -1;
    const auto found = std::lower_bound(ids.begin(), ids.end(), token);
    return found == ids.end() || *found != token ? -1 : found - ids.begin();
}

}  // namespace

BeamSearch::BeamSearch(const BeamSearchOptions& options) : options_(options), live_(1), width_(options.beam_size) {
    if (options.beam_size < 1) {
        throw ValueError(kOperation, "expected a beam of at least 1, found " + std::to_string(options.beam_size));
    }
    if (options.max_tokens < 1) {
        throw ValueError(kOperation,
                         "expected a longest length of at least 1, found " + std::to_string(options.max_tokens));
    }
}

const NextStep& BeamSearch::advance(const MutableTensorView& logits, std::span<const std::int64_t> ids) {
    check_logits(kOperation, logits, rows(), ids);
    const std::int64_t count = logits.size(1);
    const std::int64_t banned = column_of(options_.banned, ids, count);
    candidates_.clear();
    if (options_.beam_size == 1 && !options_.log_probabilities) {
        if (banned >= 0) logits.data<float>()[banned] = -std::numeric_limits<float>::infinity();
        find_largest(logits.data<float>(), count);
    } else {
        find_candidates(logits.data<float>(), count, banned);
    }

    ++length_;
    next_.parents.clear();
    next_.tokens.clear();
    const std::vector<Live> before = std::move(live_);
    live_.clear();
    for (const Candidate& candidate : candidates_) {
        const std::int64_t token = ids.empty() ? candidate.column : ids[static_cast<std::size_t>(candidate.column)];
        const auto step = static_cast<std::int64_t>(choices_.size());
        choices_.push_back({before[static_cast<std::size_t>(candidate.row)].step, candidate.row, token});
        if (token == options_.end || length_ >= options_.max_tokens) {
            const auto length = static_cast<double>(length_);
            const double score = (candidate.log_probability - options_.word_penalty * length) /
                                 std::pow(length, options_.length_penalty);
            ended_.push_back({score, candidate.log_probability, step});
            --width_;
            continue;
        }
        live_.push_back({candidate.log_probability, step});
        next_.parents.push_back(candidate.row);
        next_.tokens.push_back(token);
    }
    return next_;
}

void BeamSearch::find_largest(const float* logits, std::int64_t count) {
    candidates_.push_back({0.0, 0, kernels::cpu::row_kernels().largest(logits, count)});
}

// The best `width_` of all, best first; of equal ones the first row and column. A banned token takes part in the sum of
// probabilities, as in Marian.
void BeamSearch::find_candidates(const float* logits, std::int64_t count, std::int64_t banned_column) {
    const auto better = [](const Candidate& a, const Candidate& b) { return a.log_probability > b.log_probability; };
    const auto width = static_cast<std::size_t>(width_);
    for (std::int64_t r = 0; r < rows(); ++r) {
        const float* row = logits + r * count;
        const double base = live_[static_cast<std::size_t>(r)].log_probability - log_sum_exp(row, count);
        for (std::int64_t c = 0; c < count; ++c) {
            const double value = base + static_cast<double>(row[c]);
            const bool full = candidates_.size() == width;
            if (c == banned_column || !(value > (full ? candidates_.back().log_probability : -kInfinity))) continue;
            if (full) candidates_.pop_back();
            const Candidate candidate{value, r, c};
            candidates_.insert(std::upper_bound(candidates_.begin(), candidates_.end(), candidate, better), candidate);
        }
    }
    // Logits of NaN, or none that may be taken: any token ends the search in time.
    if (candidates_.empty()) candidates_.push_back({-kInfinity, 0, 0});
}

std::vector<Hypothesis> BeamSearch::best(std::int64_t count) const {
    std::vector<Ended> order = ended_;
    std::stable_sort(order.begin(), order.end(), [](const Ended& a, const Ended& b) { return a.score > b.score; });
    order.resize(std::min(order.size(), static_cast<std::size_t>(std::max<std::int64_t>(count, 0))));
    std::vector<Hypothesis> found;
    for (const Ended& ended : order) {
        Hypothesis hypothesis;
        for (std::int64_t step = ended.step; step >= 0; step = choices_[static_cast<std::size_t>(step)].parent) {
            hypothesis.tokens.push_back(choices_[static_cast<std::size_t>(step)].token);
            hypothesis.rows.push_back(choices_[static_cast<std::size_t>(step)].row);
        }
        std::reverse(hypothesis.tokens.begin(), hypothesis.tokens.end());
        std::reverse(hypothesis.rows.begin(), hypothesis.rows.end());
        hypothesis.log_probability = ended.log_probability;
        hypothesis.score = ended.score;
        found.push_back(std::move(hypothesis));
    }
    return found;
}

}  // namespace attend::search
