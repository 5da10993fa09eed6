/// @file
/// What a search that leaves logits as they are looks at: the best of each row, and the sum over all. Both are gathered
/// from parts of a row, so that the logits of a whole vocabulary need never be in memory together.
#pragma once

#include <attend/search/candidates.h>

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

namespace attend::search {

/// Of a row of logits.
struct BestLogits {
    double log_sum_exp = 0.0;  ///< of all, within 1e-6; NaN or infinite where some logit is
    /// The best, best first, of equal ones the first: `value` is the logit. Without minus infinity and NaN.
    std::vector<Candidate> best = {};
    std::int64_t columns = 0;  ///< logits of the row
};

/// Of neighbouring columns of a row.
struct BestOfPart {
    float largest = 0.0F;              ///< minus infinity: sum_exp is as it is
    double sum_exp = 0.0;              ///< of exp(logit - largest)
    std::vector<Candidate> best = {};  ///< as in BestLogits
};

/// A number that some of a row's logits, at least as many as are wanted, reach; rises. Logits below it are not among
/// the best, so what parts share through it changes their time and no result.
using LeastOfBest = std::atomic<float>;

/// @param logits [count], at least 1 @param first_column column of the first one @param most how many of the best
/// @param least shared by the parts of a row; at first minus infinity
BestOfPart best_of_part(const float* logits, std::int64_t count, std::int64_t first_column, std::int64_t most,
                        LeastOfBest& least);

/// @param parts of a row of so many columns, at least one, in their order
BestLogits merge_parts(std::span<const BestOfPart> parts, std::int64_t columns, std::int64_t most);

}  // namespace attend::search
