#include <attend/search/sampling_search.h>

#include <attend/core/error.h>
#include <attend/core/philox.h>
#include <attend/search/candidates.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace attend::search {

namespace {

constexpr const char* kOperation = "SamplingSearch";

/// Uniform in [0, 1), a multiple of 2^-53.
double uniform(std::uint64_t seed, std::int64_t sample, std::int64_t place) {
    const auto bits = philox4x32({static_cast<std::uint32_t>(place), static_cast<std::uint32_t>(sample), 0, 0}, seed);
    const std::uint64_t wide = (static_cast<std::uint64_t>(bits[0]) << 32U) | bits[1];
    return static_cast<double>(wide >> 11U) * 0x1p-53;
}

}  // namespace

SamplingSearch::SamplingSearch(GenerationOptions options)
    : options_(std::move(options)), processors_(options_), live_(1) {
    check_generation(kOperation, options_);
    if (options_.num_beams != 1) {
        throw ValueError(kOperation, "expected num_beams of 1, found " + std::to_string(options_.num_beams));
    }
    live_.front().tokens = {options_.start};
}

const NextStep& SamplingSearch::advance(const MutableTensorView& logits, std::span<const std::int64_t> ids) {
    check_logits(kOperation, logits, rows(), ids);
    if (!ids.empty()) throw ValueError(kOperation, "expected logits of all tokens, found those of some");
    const std::int64_t count = logits.size(1);
    const std::size_t length = live_.front().tokens.size();
    const bool given = length <= options_.prefix.size();
    std::vector<Sample> before = std::move(live_);
    std::vector<std::int64_t> rows(before.size());
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int64_t>(i);
    if (length == options_.prefix.size() + 1) {  // all samples begin with the same row
        before.resize(static_cast<std::size_t>(options_.sequences), before.front());
        rows.assign(before.size(), 0);
        for (std::size_t i = 0; i < before.size(); ++i) before[i].number = static_cast<std::int64_t>(i);
    }
    live_.clear();
    next_.parents.clear();
    next_.tokens.clear();
    std::vector<float> processed;
    for (std::size_t i = 0; i < before.size(); ++i) {
        Sample& sample = before[i];
        const float* row = logits.data<float>() + rows[i] * count;
        std::int64_t token = 0;
        if (given) {
            token = options_.prefix[length - 1];
        } else {
            const double normalizer = normalizer_of(kOperation, row, count);
            processed.assign(row, row + count);
            token = draw(sample, processed.data(), count);
            sample.found.log_probability += static_cast<double>(row[token]) - normalizer;
        }
        sample.tokens.push_back(token);
        sample.found.tokens.push_back(token);
        sample.found.rows.push_back(rows[i]);
        const bool over = static_cast<std::int64_t>(sample.tokens.size()) >= options_.max_length;
        if (!given && (processors_.is_end(token) || over)) {
            const auto drawn = static_cast<double>(sample.tokens.size() - 1 - options_.prefix.size());
            sample.found.score = sample.found.log_probability / std::pow(drawn, options_.length_penalty);
            ended_.push_back(std::move(sample.found));
            continue;
        }
        next_.parents.push_back(rows[i]);
        next_.tokens.push_back(token);
        live_.push_back(std::move(sample));
    }
    return next_;
}

std::int64_t SamplingSearch::draw(const Sample& sample, float* logits, std::int64_t count) const {
    static_cast<void>(processors_.process(sample.tokens, logits, count, 0.0));
    const std::vector<Chance> all = chances(logits, count);
    if (all.empty()) return 0;  // none that may be taken: any token ends the search in time
    double total = 0.0;
    std::size_t kept = 0;
    for (const Chance& chance : all) total += chance.probability;
    double sum = 0.0;
    while (kept < all.size() && (kept == 0 || sum < options_.top_p * total)) sum += all[kept++].probability;
    const double at = sum * uniform(options_.seed, sample.number, static_cast<std::int64_t>(sample.tokens.size()));
    double passed = 0.0;
    for (std::size_t i = 0; i + 1 < kept; ++i) {
        passed += all[i].probability;
        if (at < passed) return all[i].token;
    }
    return all[kept - 1].token;
}

// The most probable first.
std::vector<SamplingSearch::Chance> SamplingSearch::chances(const float* logits, std::int64_t count) const {
    Candidates candidates(options_.top_k == 0 ? count : std::min(options_.top_k, count));
    std::vector<Chance> all;
    if (options_.top_k > 0) {
        candidates.offer(logits, count, 0, 0.0, [](float x) { return static_cast<double>(x); });
        for (const Candidate& candidate : candidates.kept()) all.push_back({candidate.value, candidate.column});
    } else {
        for (std::int64_t token = 0; token < count; ++token) {
            if (std::isfinite(logits[token])) all.push_back({static_cast<double>(logits[token]), token});
        }
        std::stable_sort(all.begin(), all.end(),
                         [](const Chance& a, const Chance& b) { return a.probability > b.probability; });
    }
    if (all.empty()) return all;
    const double largest = all.front().probability;
    for (Chance& chance : all) chance.probability = std::exp((chance.probability - largest) / options_.temperature);
    return all;
}

std::vector<Hypothesis> SamplingSearch::best(std::int64_t count) const {
    std::vector<Hypothesis> found = ended_;
    std::stable_sort(found.begin(), found.end(),
                     [](const Hypothesis& a, const Hypothesis& b) { return a.score > b.score; });
    if (static_cast<std::int64_t>(found.size()) > count) found.resize(static_cast<std::size_t>(count));
    return found;
}

}  // namespace attend::search
