#include <attend/search/logits_processors.h>

#include <attend/core/error.h>
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

/// All minus infinity but the allowed ones, which are 0.
void force(std::span<const std::int64_t> allowed, float* logits, std::int64_t count) {
    std::fill_n(logits, count, kNone);
    for (const std::int64_t token : allowed) {
        if (is_within(token, count)) logits[token] = 0.0F;
    }
}

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
           std::to_string(options.repetition_penalty));
    expect(options.no_repeat_ngram_size >= 0, "no_repeat_ngram_size of at least 0",
           std::to_string(options.no_repeat_ngram_size));
    if (!options.do_sample) return;
    expect(positive(options.temperature), "a finite temperature above 0", std::to_string(options.temperature));
    expect(options.top_k >= 0, "top_k of at least 0", std::to_string(options.top_k));
    expect(options.top_p > 0.0 && options.top_p <= 1.0, "top_p above 0, at most 1", std::to_string(options.top_p));
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
    if (options_.no_repeat_ngram_size > 0) ban_ngrams(tokens, logits, count);
    ban_words(tokens, logits, count);
    const auto length = static_cast<std::int64_t>(tokens.size());
    if (length < options_.min_length) {
        for (const std::int64_t end : options_.ends) {
            if (is_within(end, count)) logits[end] = kNone;
        }
    }
    const bool first = options_.forced_first && length == 1;
    if (first) force({&*options_.forced_first, 1}, logits, count);
    const bool last = !options_.forced_last.empty() && length == options_.max_length - 1;
    if (last) force(options_.forced_last, logits, count);
    const auto suppress = [&](const std::vector<std::int64_t>& some) {
        for (const std::int64_t token : some) {
            if (is_within(token, count)) logits[token] = kNone;
        }
    };
    suppress(options_.suppressed);
    const auto given = static_cast<std::int64_t>(options_.prefix.size()) + 1;
    if (length == (options_.forced_first && given == 1 ? 2 : given)) suppress(options_.suppressed_first);
    if (options_.renormalize_logits) return log_sum_exp(logits, count);
    return first || last ? 0.0 : normalizer;
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

void LogitsProcessors::ban_ngrams(const std::vector<std::int64_t>& tokens, float* logits, std::int64_t count) const {
    const auto n = static_cast<std::size_t>(options_.no_repeat_ngram_size);
    if (tokens.size() + 1 < n) return;
    const std::size_t before = n - 1;
    for (std::size_t i = 0; i + n <= tokens.size(); ++i) {
        const bool repeats = std::equal(tokens.end() - static_cast<std::ptrdiff_t>(before), tokens.end(),
                                        tokens.begin() + static_cast<std::ptrdiff_t>(i));
        const std::int64_t token = tokens[i + before];
        if (repeats && is_within(token, count)) logits[token] = kNone;
    }
}

void LogitsProcessors::ban_words(const std::vector<std::int64_t>& tokens, float* logits, std::int64_t count) const {
    for (const std::vector<std::int64_t>& words : options_.bad_words) {
        if (words.empty() || !is_within(words.back(), count)) continue;
        // A single end token is not a bad word there.
        if (words.size() == 1 && is_end(words.front())) continue;
        if (would_complete(tokens, words)) logits[words.back()] = kNone;
    }
}

}  // namespace attend::search
