#include <attend/core/error.h>
#include <attend/kernels/cpu/row_kernels.h>
#include <attend/search/generation_search.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

namespace attend::search {

namespace {

constexpr const char* kOperation = "GenerationSearch";
constexpr float kNone = -std::numeric_limits<float>::infinity();
constexpr float kFar = -1.0e9F;  // Transformers' stand-in for minus infinity, which scores are compared with

void to_log_probabilities(float* scores, std::int64_t count) {
    const double normalizer = log_sum_exp(scores, count);
    for (std::int64_t i = 0; i < count; ++i) {
        scores[i] = static_cast<float>(static_cast<double>(scores[i]) - normalizer);
    }
}

/// Whether the last of `words` would complete them. Longer ones than there are tokens never do (as there).
bool would_complete(const std::vector<std::int64_t>& tokens, std::span<const std::int64_t> words) {
    if (words.size() == 1) return true;
    const std::span<const std::int64_t> before = words.first(words.size() - 1);
    return tokens.size() >= words.size() &&
           std::equal(before.begin(), before.end(), tokens.end() - static_cast<std::ptrdiff_t>(before.size()));
}

}  // namespace

GenerationSearch::GenerationSearch(GenerationOptions options) : options_(std::move(options)), live_(1) {
    if (options_.num_beams < 1) {
        throw ValueError(kOperation, "expected num_beams of at least 1, found " + std::to_string(options_.num_beams));
    }
    if (options_.max_length < 2) {
        throw ValueError(kOperation, "expected max_length of at least 2, the start token and one more, found " +
                                         std::to_string(options_.max_length));
    }
    if (!(options_.repetition_penalty > 0.0)) {
        throw ValueError(kOperation,
                         "expected a repetition_penalty above 0, found " + std::to_string(options_.repetition_penalty));
    }
    if (options_.no_repeat_ngram_size < 0) {
        throw ValueError(kOperation, "expected no_repeat_ngram_size of at least 0, found " +
                                         std::to_string(options_.no_repeat_ngram_size));
    }
    live_.front().tokens = {options_.start};
}

bool GenerationSearch::ends_with(std::int64_t token) const {
    return std::find(options_.ends.begin(), options_.ends.end(), token) != options_.ends.end();
}

// In the order of Transformers' list of processors: repetition, n-grams, bad words, shortest length, forced tokens,
// normalisation.
void GenerationSearch::process(const Beam& beam, float* scores, std::int64_t count) const {
    const std::vector<std::int64_t>& tokens = beam.tokens;
    const auto within = [&](std::int64_t token) { return token >= 0 && token < count; };
    if (options_.repetition_penalty != 1.0) {
        const auto penalty = static_cast<float>(options_.repetition_penalty);
        std::vector<std::int64_t> seen = tokens;
        std::sort(seen.begin(), seen.end());
        seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
        for (const std::int64_t token : seen) {
            if (!within(token)) continue;
            scores[token] = scores[token] < 0.0F ? scores[token] * penalty : scores[token] / penalty;
        }
    }
    const auto n = static_cast<std::size_t>(options_.no_repeat_ngram_size);
    if (n > 0 && tokens.size() + 1 >= n) {
        const std::size_t prefix = n - 1;
        for (std::size_t i = 0; i + n <= tokens.size(); ++i) {
            const bool repeats = std::equal(tokens.end() - static_cast<std::ptrdiff_t>(prefix), tokens.end(),
                                            tokens.begin() + static_cast<std::ptrdiff_t>(i));
            const std::int64_t token = tokens[i + prefix];
            if (repeats && within(token)) scores[token] = kNone;
        }
    }
    for (const std::vector<std::int64_t>& words : options_.bad_words) {
        if (words.empty() || !within(words.back())) continue;
        // A single end token is not a bad word there.
        if (words.size() == 1 && ends_with(words.front())) continue;
        if (would_complete(tokens, words)) scores[words.back()] = kNone;
    }
    const auto length = static_cast<std::int64_t>(tokens.size());
    if (length < options_.min_length) {
        for (const std::int64_t end : options_.ends) {
            if (within(end)) scores[end] = kNone;
        }
    }
    const auto force = [&](std::span<const std::int64_t> allowed) {
        std::fill_n(scores, count, kNone);
        for (const std::int64_t token : allowed) {
            if (within(token)) scores[token] = 0.0F;
        }
    };
    if (options_.forced_first && length == 1) force({&*options_.forced_first, 1});
    if (!options_.forced_last.empty() && length == options_.max_length - 1) force(options_.forced_last);
    if (options_.renormalize_logits) to_log_probabilities(scores, count);
}

const NextStep& GenerationSearch::advance(const MutableTensorView& logits, std::span<const std::int64_t> ids) {
    check_logits(kOperation, logits, rows(), ids);
    if (!ids.empty()) throw ValueError(kOperation, "expected logits of all tokens, found those of some");
    const std::int64_t count = logits.size(1);
    auto* scores = logits.data<float>();
    if (options_.num_beams == 1) return take_largest(scores, count);
    for (std::size_t r = 0; r < live_.size(); ++r) {
        float* row = scores + static_cast<std::int64_t>(r) * count;
        to_log_probabilities(row, count);
        process(live_[r], row, count);
        for (std::int64_t i = 0; i < count; ++i) row[i] += live_[r].sum;
    }
    const std::vector<Candidate> candidates = largest(scores, count);
    ++length_;
    bool all_ended = true;
    std::vector<Beam> running;
    const bool closed =
        static_cast<std::int64_t>(ended_.size()) == options_.num_beams && options_.early_stopping == EarlyStopping::yes;
    for (std::size_t rank = 0; rank < candidates.size(); ++rank) {
        const Candidate& candidate = candidates[rank];
        const bool ended = ends_with(candidate.token) || length_ >= options_.max_length;
        if (!ended) {
            all_ended = false;
            if (static_cast<std::int64_t>(running.size()) < options_.num_beams) running.push_back(continued(candidate));
            continue;
        }
        // Ends that others outrank are dropped: they were only looked at so that enough live ones remain.
        const bool counts = static_cast<std::int64_t>(rank) < options_.num_beams && !closed && may_improve_;
        if (counts) finish(continued(candidate));
    }
    next_.parents.clear();
    next_.tokens.clear();
    for (const Beam& beam : running) {
        next_.parents.push_back(beam.rows.back());
        next_.tokens.push_back(beam.tokens.back());
    }
    live_ = std::move(running);
    if (is_over(all_ended)) {
        live_.clear();
        next_.parents.clear();
        next_.tokens.clear();
    }
    return next_;
}

const NextStep& GenerationSearch::take_largest(float* scores, std::int64_t count) {
    Beam& beam = live_.front();
    const double normalizer = log_sum_exp(scores, count);
    std::vector<float> before(scores, scores + count);
    process(beam, scores, count);
    const std::int64_t token = kernels::cpu::row_kernels().largest(scores, count);
    beam.sum += static_cast<float>(static_cast<double>(before[static_cast<std::size_t>(token)]) - normalizer);
    beam.tokens.push_back(token);
    beam.rows.push_back(0);
    ++length_;
    next_.parents = {0};
    next_.tokens = {token};
    if (ends_with(token) || length_ >= options_.max_length) {
        finish(std::move(beam));
        live_.clear();
        next_.parents.clear();
        next_.tokens.clear();
    }
    return next_;
}

// The best max(2, 1 + ends) num_beams, best first; of equal ones the first row and token.
std::vector<GenerationSearch::Candidate> GenerationSearch::largest(const float* scores, std::int64_t count) const {
    const std::size_t keep =
        std::max<std::size_t>(2, 1 + options_.ends.size()) * static_cast<std::size_t>(options_.num_beams);
    std::vector<Candidate> found;
    const auto better = [](const Candidate& a, const Candidate& b) { return a.sum > b.sum; };
    for (std::int64_t r = 0; r < rows(); ++r) {
        for (std::int64_t token = 0; token < count; ++token) {
            const float sum = scores[r * count + token];
            if (found.size() == keep && !(sum > found.back().sum)) continue;
            if (!(sum > kNone)) continue;
            const Candidate candidate{sum, r, token};
            if (found.size() == keep) found.pop_back();
            found.insert(std::upper_bound(found.begin(), found.end(), candidate, better), candidate);
        }
    }
    return found;
}

GenerationSearch::Beam GenerationSearch::continued(const Candidate& candidate) const {
    Beam beam = live_[static_cast<std::size_t>(candidate.row)];
    beam.tokens.push_back(candidate.token);
    beam.rows.push_back(candidate.row);
    beam.sum = candidate.sum;
    return beam;
}

void GenerationSearch::finish(Beam beam) {
    const auto generated = static_cast<float>(beam.tokens.size() - 1);
    beam.score = beam.sum / std::pow(generated, static_cast<float>(options_.length_penalty));
    const auto place = std::upper_bound(ended_.begin(), ended_.end(), beam,
                                        [](const Beam& a, const Beam& b) { return a.score > b.score; });
    ended_.insert(place, std::move(beam));
    if (static_cast<std::int64_t>(ended_.size()) > options_.num_beams) ended_.pop_back();
}

bool GenerationSearch::is_over(bool all_ended) {
    const bool full = static_cast<std::int64_t>(ended_.size()) == options_.num_beams;
    const float best_sum = live_.empty() ? kFar : live_.front().sum;
    const bool any_length = options_.early_stopping == EarlyStopping::never && options_.length_penalty > 0.0;
    const auto length = static_cast<float>(any_length ? options_.max_length - 1 : length_ - 1);
    const float possible = best_sum / std::pow(length, static_cast<float>(options_.length_penalty));
    const float worst = full ? ended_.back().score : kFar;
    may_improve_ = may_improve_ && possible > worst;
    return !may_improve_ || (full && options_.early_stopping == EarlyStopping::yes) || all_ended;
}

std::vector<Hypothesis> GenerationSearch::best(std::int64_t count) const {
    std::vector<Hypothesis> found;
    for (const Beam& beam : ended_) {
        if (static_cast<std::int64_t>(found.size()) >= count) break;
        found.push_back({{beam.tokens.begin() + 1, beam.tokens.end()}, beam.rows, beam.sum, beam.score});
    }
    return found;
}

}  // namespace attend::search
