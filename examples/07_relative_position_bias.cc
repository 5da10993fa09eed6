// A bias for each head and distance, learned: scores changed by a function, and the gradient of its table.
#include <attend/attend.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

int main() {
    using namespace attend;
    const std::int64_t heads = 2, length = 200, reach = 8;  // distances beyond count as the farthest
    const std::int64_t entries = heads * (2 * reach + 1);
    std::vector<float> table(static_cast<std::size_t>(entries), 0.1F);
    const auto entry = [=](const ScorePlace& tile, std::int64_t i, std::int64_t j) {
        const std::int64_t distance = tile.query_begin + i + tile.query_offset - tile.key_begin - j;
        return static_cast<std::size_t>(tile.head * (2 * reach + 1) + std::clamp(distance, -reach, reach) + reach);
    };
    std::vector<double> sums;  // one table for each slot: no two threads add to the same
    const auto each_pair = [](const auto& tile, const auto& use) {
        for (std::int64_t i = 0; i < tile.query_count; ++i) {
            for (std::int64_t j = 0; j < tile.key_count; ++j) use(i, j);
        }
    };
    ScoreFunction bias;
    bias.change = [&](const ScoreTile& tile) {
        each_pair(tile, [&](auto i, auto j) { tile.score(i, j) += table[entry(tile, i, j)]; });
    };
    bias.parameters = [&](const ScoreGradientTile& tile) {
        double* own = sums.data() + tile.slot * entries;
        each_pair(tile, [&](auto i, auto j) { own[entry(tile, i, j)] += tile.grad(i, j); });
    };
    const Tensor q = randn({1, heads, length, 32}, {.seed = 1});
    const Tensor v = randn({1, heads, length, 32}, {.seed = 2});
    const AttentionOptions options{.mask = Mask::causal(), .score = bias};
    sums.resize(static_cast<std::size_t>(score_slots(q, q, v, options) * entries));
    const AttentionResult y = attention(q, q, v, options);
    attention_backward(v, q, q, v, y, options);  // of the loss sum(v * output)

    double largest = 0.0;
    for (const std::int64_t e : {reach, reach + 3, 2 * reach + 1 + 2 * reach}) {
        double gradient = 0.0;
        for (std::size_t at = static_cast<std::size_t>(e); at < sums.size(); at += entries) gradient += sums[at];
        const auto loss = [&](float at) {
            table[static_cast<std::size_t>(e)] = at;
            const Tensor output = attention(q, q, v, options).output;
            double sum = 0.0;
            for (std::int64_t x = 0; x < v.numel(); ++x) sum += double{v.data<float>()[x]} * output.data<float>()[x];
            return sum;
        };
        const double difference = (loss(0.11F) - loss(0.09F)) / 0.02;
        loss(0.1F);
        std::printf("entry %d: gradient %.3f, central difference %.3f\n", static_cast<int>(e), gradient, difference);
        largest = std::fmax(largest, std::fabs(gradient - difference) / (1.0 + std::fabs(difference)));
    }
    return largest < 1e-2 ? 0 : 1;
}
