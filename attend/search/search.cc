#include <attend/search/search.h>

#include <attend/core/error.h>
#include <attend/kernels/cpu/row_kernels.h>

#include <cmath>
#include <limits>
#include <string>

namespace attend::search {

namespace {

[[noreturn]] void refuse_logits(const char* operation) {
    throw LogitsError(operation, "expected finite logits, found NaN or infinity");
}

}  // namespace

void Search::check_logits(const char* operation, const TensorView& logits, std::int64_t rows,
                          std::span<const std::int64_t> ids) {
    if (logits.dtype() != DType::float32) {
        throw DTypeError(operation, "expected logits of float32, found " + std::string(name_of(logits.dtype())));
    }
    const bool fits = logits.rank() == 2 && logits.size(0) == rows && logits.size(1) > 0 && logits.is_contiguous() &&
                      (ids.empty() || logits.size(1) == static_cast<std::int64_t>(ids.size()));
    if (fits) return;
    throw ShapeError(operation, "expected contiguous logits of shape [" + std::to_string(rows) + ", " +
                                    (ids.empty() ? "candidates" : std::to_string(ids.size())) + "], found " +
                                    to_string(logits.shape()));
}

const NextStep& Search::advance_best(std::span<const BestLogits> /*rows*/) {
    throw ValueError("Search", "expected whole rows of logits, found the best of them");
}

void Search::check_best(const char* operation, std::span<const BestLogits> best, std::int64_t rows) {
    if (static_cast<std::int64_t>(best.size()) != rows) {
        throw ShapeError(operation, "expected the best logits of " + std::to_string(rows) + " rows, found " +
                                        std::to_string(best.size()));
    }
    for (const BestLogits& row : best) {
        if (!std::isfinite(row.log_sum_exp)) refuse_logits(operation);
    }
}

double Search::normalizer_of(const char* operation, const float* logits, std::int64_t count) {
    const double sum = log_sum_exp(logits, count);
    if (!std::isfinite(sum)) refuse_logits(operation);
    return sum;
}

std::int64_t Search::largest_of(const char* operation, const float* logits, std::int64_t count) {
    const std::int64_t place = kernels::cpu::row_kernels().largest(logits, count);
    if (!(logits[place] < std::numeric_limits<float>::infinity())) refuse_logits(operation);
    return place;
}

double log_sum_exp(const float* logits, std::int64_t count) {
    const auto& kernels = kernels::cpu::row_kernels();
    const float largest = logits[kernels.largest(logits, count)];
    return static_cast<double>(largest) + std::log(kernels.sum_exp(logits, count, largest));
}

}  // namespace attend::search
