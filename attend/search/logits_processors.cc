#include <attend/search/logits_processors.h>

#include <attend/core/error.h>
#include <attend/core/number_text.h>
#include <attend/search/search.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>

namespace attend::search {

namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

bool is_within(std::int64_t token, std::int64_t count) {
    return token >= 0 && token < count;
}

/// Whether the last of `words` would complete them. Longer ones than there are tokens never do (as there).
bool would_complete(const std::vector<std::int64_t>& tokens, std::span<const std::int64_t> words) {
    if (words.size() == 1) return true;
    const std::span<const std::int64_t> before = words.first(words.size() - 1);
    return tokens.size() >= words.size() &&
           std::equal(before.begin(), before.end(), tokens.end() - static_cast<std::ptrdiff_t>(before.size()));
}

/// A row of logits of all tokens.
class WholeRow {
public:
    WholeRow(float* logits, std::int64_t count) : logits_(logits), count_(count) {}

    void ban(std::int64_t token) {
        if (is_within(token, count_)) logits_[token] = kNone;
    }
    /// All minus infinity but the allowed ones, which are 0.
    void force(std::span<const std::int64_t> allowed) {
        std::fill_n(logits_, count_, kNone);
        for (const std::int64_t token : allowed) {
            if (is_within(token, count_)) logits_[token] = 0.0F;
        }
    }

private:
    float* logits_;
    std::int64_t count_;
};

/// The same of the best.
class BestRow {
public:
    explicit BestRow(BestLogits& row) : row_(row) {}

    void ban(std::int64_t token) {
        std::erase_if(row_.best, [&](const Candidate& candidate) { return candidate.column == token; });
    }
    void force(std::span<const std::int64_t> allowed) {
        row_.log_sum_exp = 0.0;
        row_.best.clear();
        std::vector<std::int64_t> tokens(allowed.begin(), allowed.end());
        std::sort(tokens.begin(), tokens.end());
        tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
        for (const std::int64_t token : tokens) {
            if (is_within(token, row_.columns)) row_.best.push_back({0.0, 0, token});
        }
    }

private:
    BestLogits& row_;
};

}  // namespace

void check_generation(const char* operation, const GenerationOptions& options) {
    const auto expect = [&](bool fits, const char* what, const std::string& found) {
        if (!fits) throw ValueError(operation, std::string("expected ") + what + ", found " + found);
    };
    const auto given = static_cast<std::int64_t>(options.prefix.size()) + 1;
    expect(options.num_beams >= 1, "num_beams of at least 1", std::to_string(options.num_beams));
    expect(options.max_length > given, "a max_length above that of the start token and the prefix",
           std::to_string(options.max_length) + " with " + std::to_string(given) + " tokens given");
    const auto positive = [](double number) { return number > 0.0 && std::isfinite(number); };
    expect(positive(options.repetition_penalty), "a finite repetition_penalty above 0",
           number_text(options.repetition_penalty));
    expect(options.no_repeat_ngram_size >= 0, "no_repeat_ngram_size of at least 0",
           std::to_string(options.no_repeat_ngram_size));
    if (!options.do_sample) return;
    expect(positive(options.temperature), "a finite temperature above 0", number_text(options.temperature));
    expect(options.top_k >= 0, "top_k of at least 0", std::to_string(options.top_k));
    expect(options.top_p > 0.0 && options.top_p <= 1.0, "top_p above 0, at most 1", number_text(options.top_p));
    expect(options.sequences >= 1, "at least 1 sequence", std::to_string(options.sequences));
}

bool LogitsProcessors::any() const {
    return options_.repetition_penalty != 1.0 || options_.no_repeat_ngram_size > 0 || !options_.bad_words.empty() ||
           options_.min_length > 0 || options_.forced_first || !options_.forced_last.empty() ||
           !options_.suppressed.empty() || !options_.suppressed_first.empty() || options_.renormalize_logits;
}

bool LogitsProcessors::is_end(std::int64_t token) const {
    return std::find(options_.ends.begin(), options_.ends.end(), token) != options_.ends.end();
}

double LogitsProcessors::process(const std::vector<std::int64_t>& tokens, float* logits, std::int64_t count,
                                 double normalizer) const {
    if (options_.repetition_penalty != 1.0) penalize_repetition(tokens, logits, count, normalizer);
    WholeRow row(logits, count);
    ban_and_force(tokens, row);
    if (options_.renormalize_logits) return log_sum_exp(logits, count);
    return forces(static_cast<std::int64_t>(tokens.size())) ? 0.0 : normalizer;
}

void LogitsProcessors::process(const std::vector<std::int64_t>& tokens, BestLogits& row) const {
    BestRow best(row);
    ban_and_force(tokens, best);
}

std::int64_t LogitsProcessors::most_banned(std::int64_t length) const {
    const std::size_t words = options_.bad_words.size() + options_.ends.size() + options_.suppressed.size() +
                              options_.suppressed_first.size();
    return static_cast<std::int64_t>(words) + (options_.no_repeat_ngram_size > 0 ? length : 0);
}

template <typename Row>
void LogitsProcessors::ban_and_force(const std::vector<std::int64_t>& tokens, Row& row) const {
    if (options_.no_repeat_ngram_size > 0) ban_ngrams(tokens, row);
    ban_words(tokens, row);
    const auto length = static_cast<std::int64_t>(tokens.size());
    const auto ban = [&](const std::vector<std::int64_t>& some) {
        for (const std::int64_t token : some) row.ban(token);
    };
    if (length < options_.min_length) ban(options_.ends);
    if (forces_first(length)) row.force({&*options_.forced_first, 1});
    if (forces_last(length)) row.force(options_.forced_last);
    ban(options_.suppressed);
    const auto given = static_cast<std::int64_t>(options_.prefix.size()) + 1;
    if (length == (options_.forced_first && given == 1 ? 2 : given)) ban(options_.suppressed_first);
}

void LogitsProcessors::penalize_repetition(const std::vector<std::int64_t>& tokens, float* logits, std::int64_t count,
                                           double normalizer) const {
    const auto penalty = static_cast<float>(options_.repetition_penalty);
    std::vector<std::int64_t> seen = tokens;
    std::sort(seen.begin(), seen.end());
    seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
    for (const std::int64_t token : seen) {
        if (!is_within(token, count)) continue;
        const auto score = static_cast<float>(static_cast<double>(logits[token]) - normalizer);
        const float changed = score < 0.0F ? score * penalty : score / penalty;
        logits[token] = static_cast<float>(static_cast<double>(changed) + normalizer);
    }
}

template <typename Row>
void LogitsProcessors::ban_ngrams(const std::vector<std::int64_t>& tokens, Row& row) const {
    const auto n = static_cast<std::size_t>(options_.no_repeat_ngram_size);
    if (tokens.size() + 1 < n) return;
    const std::size_t before = n - 1;
    for (std::size_t i = 0; i + n <= tokens.size(); ++i) {
        const bool repeats = std::equal(tokens.end() - static_cast<std::ptrdiff_t>(before), tokens.end(),
                                        tokens.begin() + static_cast<std::ptrdiff_t>(i));
        if (repeats) row.ban(tokens[i + before]);
    }
}

template <typename Row>
void LogitsProcessors::ban_words(const std::vector<std::int64_t>& tokens, Row& row) const {
    for (const std::vector<std::int64_t>& words : options_.bad_words) {
        if (words.empty()) continue;
        // A single end token is not a bad word there.
        if (words.size() == 1 && is_end(words.front())) continue;
        if (would_complete(tokens, words)) row.ban(words.back());
    }
}

}  // namespace attend::search
