#include <attend/search/beam_search.h>

#include <attend/core/error.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

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
    if (options.max_tokens <= static_cast<std::int64_t>(options.prefix.size()) && !options.prefix.empty()) {
        throw ValueError(kOperation, "expected a longest length above the prefix's, " +
                                         std::to_string(options.prefix.size()) + ", found " +
                                         std::to_string(options.max_tokens));
    }
    if (options.max_tokens < 1) {
        throw ValueError(kOperation,
                         "expected a longest length of at least 1, found " + std::to_string(options.max_tokens));
    }
}

const NextStep& BeamSearch::advance(const MutableTensorView& logits, std::span<const std::int64_t> ids) {
    check_logits(kOperation, logits, rows(), ids);
    if (static_cast<std::size_t>(length_) < options_.prefix.size()) return take_given();
    const std::vector<Candidate> candidates =
        find_candidates(logits.data<float>(), logits.size(1), column_of(options_.banned, ids, logits.size(1)));

    ++length_;
    next_.parents.clear();
    next_.tokens.clear();
    const std::vector<Live> before = std::move(live_);
    live_.clear();
    for (const Candidate& candidate : candidates) {
        const std::int64_t token = ids.empty() ? candidate.column : ids[static_cast<std::size_t>(candidate.column)];
        const auto step = static_cast<std::int64_t>(choices_.size());
        choices_.push_back({before[static_cast<std::size_t>(candidate.row)].step, candidate.row, token});
        if (token == options_.end || length_ >= options_.max_tokens) {
            const auto length = static_cast<double>(length_);
            const double score =
                (candidate.value - options_.word_penalty * length) / std::pow(length, options_.length_penalty);
            ended_.push_back({score, candidate.value, step});
            --width_;
            continue;
        }
        live_.push_back({candidate.value, step});
        next_.parents.push_back(candidate.row);
        next_.tokens.push_back(token);
    }
    return next_;
}

const NextStep& BeamSearch::take_given() {
    const std::int64_t token = options_.prefix[static_cast<std::size_t>(length_++)];
    choices_.push_back({live_.front().step, 0, token});
    live_.front().step = static_cast<std::int64_t>(choices_.size()) - 1;
    next_.parents = {0};
    next_.tokens = {token};
    return next_;
}

// The best `width_` of all, best first; of equal ones the first row and column. A banned token takes part in the sum of
// probabilities, as in Marian.
std::vector<Candidate> BeamSearch::find_candidates(float* logits, std::int64_t count,
                                                   std::int64_t banned_column) const {
    const bool largest_is_enough = options_.beam_size == 1 && !options_.log_probabilities;
    Candidates candidates(width_);
    for (std::int64_t r = 0; r < rows(); ++r) {
        float* row = logits + r * count;
        double base = live_[static_cast<std::size_t>(r)].log_probability;
        if (!largest_is_enough) base -= normalizer_of(kOperation, row, count);
        if (banned_column >= 0) row[banned_column] = -std::numeric_limits<float>::infinity();
        if (largest_is_enough) return {{0.0, 0, largest_of(kOperation, row, count)}};
        candidates.offer(row, count, r, base, [&](float x) { return base + static_cast<double>(x); });
    }
    // None that may be taken: any token ends the search in time.
    if (candidates.kept().empty()) return {{-kInfinity, 0, 0}};
    return candidates.kept();
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
