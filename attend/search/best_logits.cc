#include <attend/search/best_logits.h>

#include <attend/kernels/cpu/row_kernels.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace attend::search {

namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

void raise(LeastOfBest& least, float value) {
    float before = least.load(std::memory_order_relaxed);
    while (value > before && !least.compare_exchange_weak(before, value, std::memory_order_relaxed)) {
    }
}

}  // namespace

BestOfPart best_of_part(const float* logits, std::int64_t count, std::int64_t first_column, std::int64_t most,
                        LeastOfBest& least) {
    const auto& kernels = kernels::cpu::row_kernels();
    BestOfPart part;
    part.largest = logits[kernels.largest(logits, count)];
    // Of nothing but minus infinity, from which differences would be NaN: 0, or NaN where it hides one.
    part.sum_exp = kernels.sum_exp(logits, count, part.largest == kNone ? 0.0F : part.largest);
    Candidates best(most);
    // What equals the shared number may be among the best.
    float threshold = std::nextafter(least.load(std::memory_order_relaxed), kNone);
    for (std::int64_t c = kernels.next_above(logits, 0, count, threshold); c < count;
         c = kernels.next_above(logits, c + 1, count, threshold)) {
        best.offer({static_cast<double>(logits[c]), 0, first_column + c});
        if (best.full()) threshold = std::max(threshold, static_cast<float>(best.kept().back().value));
    }
    if (best.full()) raise(least, static_cast<float>(best.kept().back().value));
    part.best = best.kept();
    return part;
}

BestLogits merge_parts(std::span<const BestOfPart> parts, std::int64_t columns, std::int64_t most) {
    float largest = kNone;
    for (const BestOfPart& part : parts) largest = std::max(largest, part.largest);  // NaN is in its sum
    double sum = 0.0;
    Candidates best(most);
    for (const BestOfPart& part : parts) {
        const double scale =
            part.largest == kNone ? 1.0 : std::exp(static_cast<double>(part.largest) - static_cast<double>(largest));
        sum += part.sum_exp * scale;
        for (const Candidate& candidate : part.best) best.offer(candidate);
    }
    return {static_cast<double>(largest) + std::log(sum), best.kept(), columns};
}

}  // namespace attend::search
