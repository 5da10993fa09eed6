/// @file
/// What all searches have in common: one sequence's hypotheses, which are told logits step by step. The model is
/// somebody else's: who runs it calls `advance` with the logits of every step.
#pragma once

#include <attend/core/error.h>
#include <attend/core/tensor.h>
#include <attend/search/best_logits.h>

#include <cstdint>
#include <span>
#include <vector>

namespace attend::search {

/// A sequence of tokens that was found.
struct Hypothesis {
    std::vector<std::int64_t> tokens;  ///< with the end, unless it was cut at the longest length
    std::vector<std::int64_t> rows;    ///< of the logits that each token was chosen from, see Search::advance
    double log_probability = 0.0;      ///< sum of those of its tokens
    double score = 0.0;                ///< what hypotheses are ordered by, see the search; larger is better
};

/// How the live hypotheses go on.
struct NextStep {
    std::vector<std::int64_t> parents;  ///< for each: the row of the last logits that it goes on from
    std::vector<std::int64_t> tokens;   ///< for each: its last token
};

/// Logits of NaN or infinity: the model that they come from is damaged, and what is found among them means nothing.
class LogitsError : public ValueError {
public:
    using ValueError::ValueError;
};

/// The search of one sequence. Its result depends on its own logits alone.
class Search {
public:
    Search() = default;
    Search(const Search&) = delete;
    Search& operator=(const Search&) = delete;
    virtual ~Search() = default;

    /// Takes one step. @param logits float32 [rows, candidates], a row for each live hypothesis (at first for one that
    /// has no tokens), contiguous; may be changed @param ids of the candidates, rising; empty: all tokens
    /// @return the hypotheses that are live now; none: the search is over @throws ShapeError, DTypeError, LogitsError
    virtual const NextStep& advance(const MutableTensorView& logits, std::span<const std::int64_t> ids) = 0;

    /// How many of each row's best logits, and the sum over all, are as good as the logits: `advance_best` then does
    /// what `advance` would (of different logits whose scores round alike, the larger). 0: whole rows must be seen.
    virtual std::int64_t best_logits() const noexcept { return 0; }
    /// Takes one step. @param rows as `advance` expects, each with at least best_logits() logits or all that there are
    /// @return see advance @throws LogitsError, and ShapeError for another number of rows
    virtual const NextStep& advance_best(std::span<const BestLogits> rows);

    /// Rows that `advance` expects; 0: the search is over.
    virtual std::int64_t rows() const noexcept = 0;
    /// The best hypotheses that ended, best first; of equal scores the one that ended first.
    virtual std::vector<Hypothesis> best(std::int64_t count) const = 0;

protected:
    /// @throws ShapeError, DTypeError unless logits are as `advance` takes them
    static void check_logits(const char* operation, const TensorView& logits, std::int64_t rows,
                             std::span<const std::int64_t> ids);
    /// @throws ShapeError, LogitsError unless rows are as `advance_best` takes them
    static void check_best(const char* operation, std::span<const BestLogits> best, std::int64_t rows);
    /// log_sum_exp of logits as the model gave them: minus infinity is a token that it never takes.
    /// @throws LogitsError where there is NaN, infinity, or nothing else than minus infinity
    static double normalizer_of(const char* operation, const float* logits, std::int64_t count);
    /// Where the sum is not asked for: the place of the largest. @throws LogitsError where that is NaN or infinity
    static std::int64_t largest_of(const char* operation, const float* logits, std::int64_t count);
};

/// log(sum of exp(logits)), within 1e-6. @param count at least 1
double log_sum_exp(const float* logits, std::int64_t count);

}  // namespace attend::search
