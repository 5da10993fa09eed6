// Decoding step by step: keys and values stay in a cache, beams share their pages.
#include <attend/attend.h>

#include <cstdio>
#include <vector>

int main() {
    using namespace attend;
    const std::int64_t kv_heads = 2;
    const std::int64_t dim = 64;

    // A prompt of 100 tokens; 8 query heads share 2 heads of keys and values.
    PagedKvCache cache({.kv_heads = kv_heads, .head_dim = dim, .page_size = 32, .dtype = DType::bfloat16});
    const std::int64_t prompt = cache.add_sequence();
    cache.append(std::vector{prompt}, randn({1, kv_heads, 100, dim}, {.seed = 1}),
                 randn({1, kv_heads, 100, dim}, {.seed = 2}));

    // Three beams begin with the same tokens: nothing is copied.
    const std::int64_t before = cache.free_pages();
    const std::vector<std::int64_t> beams = {prompt, cache.fork(prompt), cache.fork(prompt)};
    std::printf("pages taken by two forks: %d\n", static_cast<int>(before - cache.free_pages()));

    // Each step appends a token to every beam and attends to all tokens of that beam.
    for (std::uint64_t step = 0; step < 4; ++step) {
        const Tensor key = randn({3, kv_heads, 1, dim}, {.seed = 10 + step});
        const Tensor value = randn({3, kv_heads, 1, dim}, {.seed = 20 + step});
        cache.append(beams, key, value);
        const Tensor query = randn({3, 8, 1, dim}, {.seed = 30 + step, .dtype = DType::bfloat16});
        const AttentionResult y = attention(query, cache, beams);
        std::printf("step %d: output %s, tokens %d\n", static_cast<int>(step), to_string(y.output.shape()).c_str(),
                    static_cast<int>(cache.length(beams[0])));
    }
    std::printf("pages taken by the beams' own tokens: %d\n", static_cast<int>(before - cache.free_pages()));
    for (const std::int64_t beam : beams) cache.free_sequence(beam);
}
