#include <attend/tasks/vocabulary_logits.h>

#include <attend/core/divide.h>
#include <attend/core/threads.h>

#include <algorithm>
#include <limits>
#include <span>

namespace attend {

namespace {

constexpr std::int64_t kColumns = 2048;  // whatever the number of rows, since sums follow from it
constexpr std::int64_t kRows = 16;       // of a task that merges parts

}  // namespace

std::vector<search::BestLogits> best_logits(const nn::Linear& output, const TensorView& rows, std::int64_t most) {
    const std::int64_t count = rows.size(0);
    const std::int64_t columns = output.out_features();
    const std::int64_t parts = divide_up(columns, kColumns);
    std::vector<search::BestOfPart> found(static_cast<std::size_t>(count * parts));
    std::vector<search::LeastOfBest> least(static_cast<std::size_t>(count));
    for (auto& row : least) row = -std::numeric_limits<float>::infinity();
    parallel_for(parts, [&](std::int64_t part) {
        const std::int64_t first = part * kColumns;
        const std::int64_t width = std::min(kColumns, columns - first);
        Tensor logits = Tensor::empty({count, width});
        output.forward_columns(rows, first, logits.view());
        for (std::int64_t r = 0; r < count; ++r) {
            found[static_cast<std::size_t>(r * parts + part)] = search::best_of_part(
                logits.data<float>() + r * width, width, first, most, least[static_cast<std::size_t>(r)]);
        }
    });
    std::vector<search::BestLogits> result(static_cast<std::size_t>(count));
    parallel_for(divide_up(count, kRows), [&](std::int64_t task) {
        for (std::int64_t r = task * kRows; r < std::min(count, (task + 1) * kRows); ++r) {
            const auto own =
                std::span(found).subspan(static_cast<std::size_t>(r * parts), static_cast<std::size_t>(parts));
            result[static_cast<std::size_t>(r)] = search::merge_parts(own, columns, most);
        }
    });
    return result;
}

}  // namespace attend
