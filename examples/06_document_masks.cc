// Documents of any length in one row: each token sees those of its own document before it.
#include <attend/attend.h>

#include <cmath>
#include <cstdio>
#include <vector>

int main() {
    using namespace attend;
    const std::vector<std::int64_t> lengths = {300, 20, 500, 80, 124};

    // The document of every token.
    std::vector<int> document;
    for (std::size_t d = 0; d < lengths.size(); ++d) {
        document.insert(document.end(), static_cast<std::size_t>(lengths[d]), static_cast<int>(d));
    }
    const auto length = static_cast<std::int64_t>(document.size());
    const BlockMask blocks = BlockMask::of_pairs({1, 1, length, length},
                                                 [&](std::int64_t, std::int64_t, std::int64_t query, std::int64_t key) {
                                                     return document[static_cast<std::size_t>(query)] ==
                                                            document[static_cast<std::size_t>(key)];
                                                 },
                                                 {64, 64});
    const Shape shape = blocks.blocks();
    std::printf("%d tokens; %d of %d blocks lie between documents\n", static_cast<int>(length),
                static_cast<int>(blocks.count(BlockKind::none)), static_cast<int>(shape.numel()));

    const Tensor query = randn({1, 4, length, 32}, {.seed = 1});
    const Tensor key = randn({1, 4, length, 32}, {.seed = 2});
    const Tensor value = randn({1, 4, length, 32}, {.seed = 3});
    const AttentionOptions options{.mask = Mask::causal() & Mask::blocks(blocks)};
    const AttentionResult y = attention(query, key, value, options);
    const auto [dq, dk, dv] = attention_backward(ones_like(y.output), query, key, value, y, options);
    std::printf("gradient of the third document's first key: %.4f\n", dk.item({0, 0, 320, 0}));

    // Each document gives what it gives alone, but for rounding.
    double largest = 0.0;
    std::int64_t begin = 0;
    for (const std::int64_t own : lengths) {
        const auto rows = [&](const Tensor& tensor) { return tensor.view().slice(2, begin, begin + own); };
        const AttentionResult alone = attention(rows(query), rows(key), rows(value), {.mask = Mask::causal()});
        for (std::int64_t i = 0; i < own; ++i) {
            const double difference = y.output.item({0, 0, begin + i, 0}) - alone.output.item({0, 0, i, 0});
            largest = std::fmax(largest, std::fabs(difference));
        }
        begin += own;
    }
    std::printf("largest difference from the documents alone: %.0e\n", largest);
    return largest < 1e-5 ? 0 : 1;
}
