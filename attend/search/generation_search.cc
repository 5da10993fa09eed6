#include <attend/search/generation_search.h>

#include <attend/core/error.h>
#include <attend/kernels/cpu/row_kernels.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

namespace attend::search {

namespace {

constexpr const char* kOperation = "GenerationSearch";
constexpr float kFar = -1.0e9F;  // Transformers' stand-in for minus infinity, which scores are compared with

/// The score of a hypothesis of `sum` with one more token, in float32 as there.
double score_of(double logit, double normalizer, float sum) {
    return static_cast<double>(static_cast<float>(logit - normalizer) + sum);
}

}  // namespace

GenerationSearch::GenerationSearch(GenerationOptions options)
    : options_(std::move(options)), processors_(options_), live_(1) {
    check_generation(kOperation, options_);
    live_.front().tokens = {options_.start};
}

const NextStep& GenerationSearch::advance(const MutableTensorView& logits, std::span<const std::int64_t> ids) {
    check_logits(kOperation, logits, rows(), ids);
    if (!ids.empty()) throw ValueError(kOperation, "expected logits of all tokens, found those of some");
    const std::int64_t count = logits.size(1);
    if (gives_next()) return take_given();
    if (options_.num_beams == 1) return take_largest(logits.data<float>(), count);
    Candidates candidates(most_candidates());
    for (std::size_t r = 0; r < live_.size(); ++r) {
        float* row = logits.data<float>() + static_cast<std::int64_t>(r) * count;
        const double normalizer =
            processors_.process(live_[r].tokens, row, count, normalizer_of(kOperation, row, count));
        const float sum = live_[r].sum;
        candidates.offer(row, count, static_cast<std::int64_t>(r), static_cast<double>(sum) - normalizer,
                         [&](float x) { return score_of(static_cast<double>(x), normalizer, sum); });
    }
    return take_candidates(candidates.kept());
}

std::int64_t GenerationSearch::best_logits() const noexcept {
    if (!processors_.suit_best_logits()) return 0;
    const std::int64_t banned = processors_.most_banned(length_);
    if (options_.num_beams > 1) return most_candidates() + banned;
    // A forced token's own logit is what the score of a greedy search is made of.
    return processors_.forces(length_) ? 0 : 1 + banned;
}

const NextStep& GenerationSearch::advance_best(std::span<const BestLogits> rows) {
    check_best(kOperation, rows, this->rows());
    if (gives_next()) return take_given();
    if (options_.num_beams == 1) {
        BestLogits row = rows.front();
        processors_.process(live_.front().tokens, row);
        // With all banned, the first token, as where all of a row are minus infinity.
        if (row.best.empty()) row.best.push_back({-std::numeric_limits<double>::infinity(), 0, 0});
        const Candidate& best = row.best.front();
        return take_token(best.column, static_cast<float>(best.value - row.log_sum_exp));
    }
    Candidates candidates(most_candidates());
    for (std::size_t r = 0; r < live_.size(); ++r) {
        BestLogits row = rows[r];
        processors_.process(live_[r].tokens, row);
        std::sort(row.best.begin(), row.best.end(),
                  [](const Candidate& a, const Candidate& b) { return a.column < b.column; });
        for (const Candidate& candidate : row.best) {
            candidates.offer({score_of(candidate.value, row.log_sum_exp, live_[r].sum), static_cast<std::int64_t>(r),
                              candidate.column});
        }
    }
    return take_candidates(candidates.kept());
}

/// So many that num_beams are left if all others end.
std::int64_t GenerationSearch::most_candidates() const noexcept {
    return std::max<std::int64_t>(2, 1 + static_cast<std::int64_t>(options_.ends.size())) * options_.num_beams;
}

const NextStep& GenerationSearch::take_candidates(const std::vector<Candidate>& candidates) {
    ++length_;
    bool all_ended = true;
    std::vector<Beam> running;
    const bool closed =
        static_cast<std::int64_t>(ended_.size()) == options_.num_beams && options_.early_stopping == EarlyStopping::yes;
    for (std::size_t rank = 0; rank < candidates.size(); ++rank) {
        const Candidate& candidate = candidates[rank];
        const bool ended = processors_.is_end(candidate.column) || length_ >= options_.max_length;
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
    std::vector<Beam> before = std::exchange(live_, std::move(running));
    if (is_over(all_ended)) {
        if (ended_.empty()) end_unfinished(std::move(before));
        live_.clear();
        next_.parents.clear();
        next_.tokens.clear();
    }
    return next_;
}

/// Whether the next token is the prefix's.
bool GenerationSearch::gives_next() const noexcept {
    return static_cast<std::size_t>(length_ - 1) < options_.prefix.size();
}

const NextStep& GenerationSearch::take_given() {
    const std::int64_t token = options_.prefix[static_cast<std::size_t>(length_ - 1)];
    live_.front().tokens.push_back(token);
    live_.front().rows.push_back(0);
    ++length_;
    next_.parents = {0};
    next_.tokens = {token};
    return next_;
}

// Processors see logits here, not their logarithms of probabilities (as there).
const NextStep& GenerationSearch::take_largest(float* logits, std::int64_t count) {
    const double normalizer = normalizer_of(kOperation, logits, count);
    std::vector<float> before;
    if (processors_.any()) {
        before.assign(logits, logits + count);
        static_cast<void>(processors_.process(live_.front().tokens, logits, count, 0.0));
    }
    const std::int64_t token = kernels::cpu::row_kernels().largest(logits, count);
    const float logit = before.empty() ? logits[token] : before[static_cast<std::size_t>(token)];
    return take_token(token, static_cast<float>(static_cast<double>(logit) - normalizer));
}

const NextStep& GenerationSearch::take_token(std::int64_t token, float logarithm) {
    Beam& beam = live_.front();
    beam.sum += logarithm;
    beam.tokens.push_back(token);
    beam.rows.push_back(0);
    ++length_;
    next_.parents = {0};
    next_.tokens = {token};
    if (processors_.is_end(token) || length_ >= options_.max_length) {
        finish(std::move(beam));
        live_.clear();
        next_.parents.clear();
        next_.tokens.clear();
    }
    return next_;
}

/// No end was worth more than -1e9, where Transformers begin: as there, the best live beam is the result, with that
/// score; or the one before it, where no token is allowed any more.
void GenerationSearch::end_unfinished(std::vector<Beam> before) {
    const bool allowed = !live_.empty() && std::isfinite(live_.front().sum);
    std::vector<Beam>& from = allowed ? live_ : before;
    if (from.empty() || from.front().tokens.size() == 1) return;  // but for the start
    ended_.push_back(std::move(from.front()));
    ended_.back().score = kFar;
}

GenerationSearch::Beam GenerationSearch::continued(const Candidate& candidate) const {
    Beam beam = live_[static_cast<std::size_t>(candidate.row)];
    beam.tokens.push_back(candidate.column);
    beam.rows.push_back(candidate.row);
    beam.sum = static_cast<float>(candidate.value);
    return beam;
}

void GenerationSearch::finish(Beam beam) {
    beam.score = beam.sum / penalty_of(static_cast<std::int64_t>(beam.tokens.size()));
    const auto place = std::upper_bound(ended_.begin(), ended_.end(), beam,
                                        [](const Beam& a, const Beam& b) { return a.score > b.score; });
    ended_.insert(place, std::move(beam));
    if (static_cast<std::int64_t>(ended_.size()) > options_.num_beams) ended_.pop_back();
}

/// What a sum is divided by. @param length with start and prefix, which do not count
float GenerationSearch::penalty_of(std::int64_t length) const {
    const auto generated = static_cast<float>(length - 1 - static_cast<std::int64_t>(options_.prefix.size()));
    return std::pow(generated, static_cast<float>(options_.length_penalty));
}

bool GenerationSearch::is_over(bool all_ended) {
    const bool full = static_cast<std::int64_t>(ended_.size()) == options_.num_beams;
    const float best_sum = live_.empty() ? kFar : live_.front().sum;
    const bool any_length = options_.early_stopping == EarlyStopping::never && options_.length_penalty > 0.0;
    const float possible = best_sum / penalty_of(any_length ? options_.max_length : length_);
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
