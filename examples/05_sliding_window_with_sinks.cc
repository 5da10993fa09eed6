// A sliding window that also keeps the first tokens (attention sinks), skipped block by block.
#include <attend/attend.h>

#include <cmath>
#include <cstdio>

int main() {
    using namespace attend;
    const std::int64_t length = 1024;
    const std::int64_t window = 200;
    const std::int64_t sinks = 4;

    // Which pairs are attended to, filled in for a tile at a time.
    const auto allow = [=](const MaskTile& tile) {
        for (std::int64_t i = 0; i < tile.query_count; ++i) {
            for (std::int64_t j = 0; j < tile.key_count; ++j) {
                const std::int64_t query = tile.query_begin + i;
                const std::int64_t key = tile.key_begin + j;
                tile.allow(i, j) = key <= query && (key < sinks || query - key < window) ? 1 : 0;
            }
        }
    };
    const BlockMask blocks({1, 1, length, length}, allow, {64, 64});  // the same for all sequences and heads
    const std::int64_t skipped = blocks.count(BlockKind::none);
    const std::int64_t all = skipped + blocks.count(BlockKind::partial) + blocks.count(BlockKind::full);
    std::printf("blocks skipped: %d of %d, whole: %d\n", static_cast<int>(skipped), static_cast<int>(all),
                static_cast<int>(blocks.count(BlockKind::full)));

    const Tensor query = randn({1, 2, length, 64}, {.seed = 1});
    const Tensor key = randn({1, 2, length, 64}, {.seed = 2});
    const Tensor value = randn({1, 2, length, 64}, {.seed = 3});
    const AttentionOptions options{.mask = Mask::causal() & Mask::blocks(blocks)};
    const AttentionResult y = attention(query, key, value, options);

    // The same pairs as a tensor of booleans: a megabyte, and every byte is read.
    const Tensor booleans = attended_keys(query, key, options);
    const AttentionResult z = attention(query, key, value, {.mask = Mask::boolean(booleans)});
    double largest = 0.0;
    for (std::int64_t e = 0; e < y.output.numel(); ++e) {
        const double difference = y.output.data<float>()[e] - z.output.data<float>()[e];
        largest = std::fmax(largest, std::fabs(difference));
    }
    std::printf("largest difference from the boolean mask: %.0e\n", largest);
    return skipped > all / 2 && largest < 1e-5 ? 0 : 1;
}
