// Masks by blocks: the same as booleans, and what they hide is not touched.
#include "cases.h"
#include "magnitude.h"

#include "tests/support/compare.h"

#include <attend/attention/block_mask.h>
#include <attend/core/element.h>
#include <attend/core/error.h>
#include <attend/core/philox.h>
#include <attend/core/threads.h>
#include <attend/kernels/cpu/isa.h>

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

namespace attend::testing {
namespace {

using kernels::cpu::available_isas;
using kernels::cpu::Isa;
using kernels::cpu::IsaOverride;

using Pairs = bool (*)(std::int64_t, std::int64_t, std::int64_t, std::int64_t);

/// A window, sinks, holes and whole hidden stripes; other ones for each sequence and head.
bool patchwork(std::int64_t batch, std::int64_t head, std::int64_t query, std::int64_t key) {
    if (query / 24 % 4 == 3) return false;
    if (key < 5) return true;
    if ((key / 32 + query / 24 + batch) % 3 == 0) return head % 2 == 0;
    return key <= query + 60 && (query * 7 + key * 3 + head) % 5 != 0;
}

Tensor as_booleans(const Shape& shape, Pairs pairs) {
    Tensor allowed(shape, DType::boolean);
    for (std::int64_t e = 0; e < allowed.numel(); ++e) {
        const std::int64_t row = e / shape[3];
        allowed.data<bool>()[e] =
            pairs(row / shape[2] / shape[1], row / shape[2] % shape[1], row % shape[2], e % shape[3]);
    }
    return allowed;
}

/// The case with the patchwork as booleans, and with it as blocks.
std::pair<Case, Case> with_patchwork(Case c, BlockSize block) {
    const Shape shape{c.batch, c.heads, c.queries, c.keys};
    Case blocks = c;
    c.mask = c.mask & Mask::boolean(as_booleans(shape, patchwork));
    blocks.mask = Mask::blocks(BlockMask::of_pairs(shape, patchwork, block)) & blocks.mask;
    return {c, blocks};
}

Magnitudes magnitudes_of(const Problem& problem, const TensorView& weights) {
    const double scale =
        problem.description.scale.value_or(1.0 / std::sqrt(std::max(1.0, static_cast<double>(problem.description.d))));
    return magnitudes(problem.query, problem.key, problem.value, problem.grad_output, weights, scale);
}

std::vector<Case> block_cases() {
    std::vector<Case> cases = option_cases();
    cases.push_back({.name = "grouped", .heads = 6, .kv_heads = 2, .queries = 120, .keys = 300});
    cases.push_back({.name = "few_queries", .heads = 4, .queries = 3, .keys = 700});
    cases.push_back({.name = "many_keys", .heads = 1, .kv_heads = 1, .queries = 40, .keys = 2500, .d = 40, .dv = 8});
    cases.push_back({.name = "empty", .queries = 0, .keys = 7});
    cases.push_back({.name = "no_keys", .queries = 7, .keys = 0});
    return cases;
}

class BlockMasks : public ::testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(Cases, BlockMasks, ::testing::ValuesIn(block_cases()),
                         [](const auto& info) { return info.param.name; });

const std::vector<BlockSize>& sizes() {
    static const std::vector<BlockSize> all = {{128, 128}, {24, 32}, {7, 5}, {96, 64}};
    return all;
}

TEST_P(BlockMasks, EqualBooleans) {
    for (const auto& [dtype, tolerance] : {std::pair(DType::float32, 5e-6), std::pair(DType::bfloat16, 0x1p-7),
                                           std::pair(DType::float16, 0x1p-10), std::pair(DType::float64, 1e-12)}) {
        const Problem p(with_patchwork(GetParam(), sizes()[0]).first, dtype, 51);
        const AttentionResult want = p.forward(Algorithm::reference);
        const AttentionGradients grad_want = p.backward(want, Algorithm::reference);
        const Magnitudes magnitude = magnitudes_of(p, want.weights);
        for (const BlockSize& size : {sizes()[0], sizes()[1], sizes()[2]}) {
            SCOPED_TRACE(std::string(name_of(dtype)) + " " + std::to_string(size.queries));
            const Problem own(with_patchwork(GetParam(), size).second, dtype, 51);
            // Which keys are seen does not depend on the type.
            if (dtype == DType::float32) {
                EXPECT_TRUE(same_bits(attended_keys(own.query, own.key, own.options()),
                                      attended_keys(p.query, p.key, p.options())));
                EXPECT_TRUE(same_bits(own.forward(Algorithm::reference).weights, want.weights));
            }
            for (const Isa isa : available_isas()) {
                if (dtype == DType::float64 && isa != Isa::scalar) continue;
                SCOPED_TRACE(name_of(isa));
                const IsaOverride forced(isa);
                const AttentionResult found = own.forward(Algorithm::flash);
                EXPECT_LE(row_error(found.output, want.output, magnitude.output), tolerance);
                EXPECT_LE(row_error(found.weights, want.weights), tolerance);
                const AttentionGradients grad = own.backward(found, Algorithm::flash);
                EXPECT_LE(row_error(grad.query, grad_want.query, magnitude.query), tolerance);
                EXPECT_LE(row_error(grad.key, grad_want.key, magnitude.key), tolerance);
                EXPECT_LE(row_error(grad.value, grad_want.value, magnitude.value), tolerance);
                if (p.bias.numel() > 0) {
                    const Tensor scale = summed_like_bias(magnitude.scores, p.bias.shape());
                    EXPECT_LE(row_error(grad.bias, grad_want.bias, scale), tolerance);
                }
            }
        }
    }
}

TEST_P(BlockMasks, BitsDoNotDependOnThreads) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::float64}) {
        const Problem p(with_patchwork(GetParam(), {24, 32}).second, dtype, 52);
        std::optional<AttentionResult> first;
        std::optional<AttentionGradients> first_gradients;
        for (const int threads : {1, 2, 3, 7}) {
            set_num_threads(threads);
            AttentionResult found = p.forward(Algorithm::automatic);
            AttentionGradients gradients = p.backward(found, Algorithm::automatic);
            if (first) {
                EXPECT_TRUE(same_bits(found.output, first->output)) << threads;
                EXPECT_TRUE(same_bits(found.weights, first->weights)) << threads;
                EXPECT_TRUE(same_bits(gradients.query, first_gradients->query)) << threads;
                EXPECT_TRUE(same_bits(gradients.key, first_gradients->key)) << threads;
                EXPECT_TRUE(same_bits(gradients.value, first_gradients->value)) << threads;
                EXPECT_TRUE(same_bits(gradients.bias, first_gradients->bias)) << threads;
            } else {
                first = std::move(found);
                first_gradients = std::move(gradients);
            }
        }
        set_num_threads(0);
    }
}

/// Sinks and a window of 100 keys, causal.
bool window_with_sinks(std::int64_t, std::int64_t, std::int64_t query, std::int64_t key) {
    return key <= query && (key < 4 || query - key < 100);
}

TEST(BlockMask, Kinds) {
    const BlockMask mask = BlockMask::of_pairs({1, 1, 512, 512}, window_with_sinks, {64, 64});
    EXPECT_EQ(mask.blocks(), (Shape{1, 1, 8, 8}));
    EXPECT_EQ(mask.kind(0, 0, 0, 0), BlockKind::partial);
    EXPECT_EQ(mask.kind(0, 0, 0, 1), BlockKind::none);
    EXPECT_EQ(mask.kind(0, 0, 5, 0), BlockKind::partial);  // sinks
    EXPECT_EQ(mask.kind(0, 0, 5, 1), BlockKind::none);
    EXPECT_EQ(mask.count(BlockKind::none) + mask.count(BlockKind::partial) + mask.count(BlockKind::full), 64);
    EXPECT_EQ(mask.count(BlockKind::full), 0);
    const BlockMask all =
        BlockMask::of_pairs({1, 1, 100, 70}, [](auto, auto, auto query, auto) { return query < 64; }, {64, 64});
    EXPECT_EQ(all.count(BlockKind::full), 2);
    EXPECT_EQ(all.count(BlockKind::none), 2);
    EXPECT_EQ(BlockMask::of_pairs({2, 3, 0, 5}, patchwork).count(BlockKind::none), 0);
}

TEST(BlockMask, BroadcastsOverBatchAndHeads) {
    const Tensor q = normal({2, 4, 70, 16}, 1);
    const Mask blocks = Mask::blocks(BlockMask::of_pairs({1, 1, 70, 70}, window_with_sinks, {32, 32}));
    const Mask booleans = Mask::boolean(as_booleans({1, 1, 70, 70}, window_with_sinks));
    EXPECT_TRUE(same_bits(attended_keys(q, q, {.mask = blocks}), attended_keys(q, q, {.mask = booleans})));
    for (const Algorithm algorithm : {Algorithm::reference, Algorithm::flash}) {
        const AttentionOptions with_blocks{.mask = blocks, .return_weights = true, .algorithm = algorithm};
        const AttentionOptions with_booleans{.mask = booleans, .return_weights = true, .algorithm = algorithm};
        EXPECT_LE(row_error(attention(q, q, q, with_blocks).weights, attention(q, q, q, with_booleans).weights), 5e-6);
    }
}

// A function is asked about blocks that are neither hidden nor visible as a whole, and about their own pairs alone;
// scores of hidden blocks are not even computed. 96 is a multiple of every tile, so that none is shared.
TEST(BlockMask, FewQueriesSkipHiddenBlocksToo) {
    constexpr std::int64_t kKeys = 1024;
    constexpr std::int64_t kBlock = 128;
    for (const std::int64_t queries : {1, 4, 5}) {
        SCOPED_TRACE(queries);
        // The fourth block of keys is seen, and nothing else.
        const BlockMask mask({1, 1, queries, kKeys},
                             [&](const MaskTile& tile) {
                                 for (std::int64_t i = 0; i < tile.query_count; ++i) {
                                     for (std::int64_t j = 0; j < tile.key_count; ++j) {
                                         tile.allow(i, j) = (tile.key_begin + j) / kBlock == 3 ? 1 : 0;
                                     }
                                 }
                             },
                             {kBlock, kBlock});
        std::atomic<std::int64_t> computed{0};
        std::atomic<int> wrong{0};
        AttentionOptions options{.mask = Mask::blocks(mask)};
        options.score = ScoreFunction{.change = [&](const ScoreTile& tile) {
            computed += tile.query_count * tile.key_count;
            if (tile.key_begin / kBlock != 3) ++wrong;
        }};
        const Tensor q = randn({1, 1, queries, 16}, {.seed = 1});
        const Tensor k = randn({1, 1, kKeys, 16}, {.seed = 2});
        attention(q, k, k, options);
        EXPECT_EQ(computed, queries * kBlock);
        EXPECT_EQ(wrong, 0);
    }
}

TEST(BlockMask, HiddenBlocksAreNotTouched) {
    constexpr std::int64_t kBlock = 96;
    constexpr std::int64_t kLength = 6 * kBlock;
    // Hidden: blocks (r, c) with c > r + 1 or r - c in {2, 3}; whole: on the diagonal.
    const auto kind_of = [](std::int64_t r, std::int64_t c) {
        if (r == c) return BlockKind::full;
        return c > r + 1 || r - c == 2 || r - c == 3 ? BlockKind::none : BlockKind::partial;
    };
    std::atomic<int> asked{0};
    std::atomic<int> wrong{0};
    std::atomic<bool> made{false};
    const BlockMask mask({1, 1, kLength, kLength},
                         [&](const MaskTile& tile) {
                             ++asked;
                             for (std::int64_t i = 0; i < tile.query_count; ++i) {
                                 for (std::int64_t j = 0; j < tile.key_count; ++j) {
                                     const std::int64_t query = tile.query_begin + i;
                                     const std::int64_t key = tile.key_begin + j;
                                     const BlockKind kind = kind_of(query / kBlock, key / kBlock);
                                     if (made && kind != BlockKind::partial) ++wrong;
                                     const bool allowed = kind == BlockKind::full ||
                                                          (kind == BlockKind::partial && (query + key) % 2 == 0);
                                     tile.allow(i, j) = allowed ? 1 : 0;
                                 }
                             }
                         },
                         {kBlock, kBlock});
    EXPECT_EQ(asked, 36);
    made = true;
    std::atomic<int> computed{0};
    AttentionOptions options{.mask = Mask::blocks(mask), .return_weights = true};
    options.score = ScoreFunction{.change =
                                      [&](const ScoreTile& tile) {
                                          ++computed;
                                          for (const std::int64_t i : {std::int64_t{0}, tile.query_count - 1}) {
                                              for (const std::int64_t j : {std::int64_t{0}, tile.key_count - 1}) {
                                                  const BlockKind kind = kind_of((tile.query_begin + i) / kBlock,
                                                                                 (tile.key_begin + j) / kBlock);
                                                  if (kind == BlockKind::none) ++wrong;
                                              }
                                          }
                                      },
                                  .parameters = [](const ScoreGradientTile&) {}};
    const Tensor q32 = normal({1, 2, kLength, 16}, 1);
    for (const Isa isa : available_isas()) {
        SCOPED_TRACE(name_of(isa));
        const IsaOverride forced(isa);
        for (const DType dtype : {DType::float32, DType::bfloat16}) {
            const Tensor q = q32.to(dtype);
            computed = 0;
            const AttentionResult y = attention(q, q, q, options);
            attention_backward(ones_like(y.output), q, q, q, y, options);
            EXPECT_EQ(wrong, 0);
            EXPECT_GT(computed, 0);
        }
    }
}

// Keys that blocks hide from everyone, and queries that see nothing, may hold anything: the same bits.
TEST(BlockMask, HiddenKeysMayHoldNaN) {
    for (const BlockSize& size : sizes()) {
        const Mask mask = Mask::blocks(BlockMask::of_pairs(
            {1, 1, 300, 500},
            [](auto, auto, auto query, auto key) {
                return query != 7 && (key < 40 || (key >= 190 && key < 200) || key >= 400) && (query + key) % 3 != 0;
            },
            size));
        for (const DType dtype : {DType::float32, DType::bfloat16, DType::float64}) {
            const Tensor q = normal({1, 2, 300, 32}, 1, dtype);
            const Tensor k = normal({1, 2, 500, 32}, 2, dtype);
            const Tensor v = normal({1, 2, 500, 32}, 3, dtype);
            const Tensor g = normal({1, 2, 300, 32}, 4, dtype);
            Tensor bad_q = q.view().clone();
            Tensor bad_k = k.view().clone();
            Tensor bad_v = v.view().clone();
            Tensor bad_g = g.view().clone();
            const double nan = std::numeric_limits<double>::quiet_NaN();
            for (Tensor* rows : {&bad_k, &bad_v}) {
                rows->view().slice(2, 40, 190).fill(nan);
                rows->view().slice(2, 200, 400).fill(nan);
            }
            for (Tensor* rows : {&bad_q, &bad_g}) rows->view().slice(2, 7, 8).fill(nan);
            const AttentionOptions options{.mask = mask, .return_weights = true};
            const AttentionResult want = attention(q, k, v, options);
            const AttentionResult found = attention(bad_q, bad_k, bad_v, options);
            EXPECT_TRUE(same_bits(found.output, want.output));
            EXPECT_TRUE(same_bits(found.weights, want.weights));
            EXPECT_EQ(found.output.item({0, 0, 7, 3}), 0.0);
            EXPECT_EQ(found.log_sum_exp.item({0, 0, 7}), -std::numeric_limits<double>::infinity());
            const AttentionGradients grad_want = attention_backward(g, q, k, v, want, options);
            const AttentionGradients grad = attention_backward(bad_g, bad_q, bad_k, bad_v, found, options);
            EXPECT_TRUE(same_bits(grad.query, grad_want.query));
            EXPECT_TRUE(same_bits(grad.key, grad_want.key));
            EXPECT_TRUE(same_bits(grad.value, grad_want.value));
            EXPECT_EQ(grad.query.item({0, 1, 7, 3}), 0.0);
            EXPECT_EQ(grad.key.item({0, 1, 250, 3}), 0.0);
        }
    }
}

// A key that is not finite reaches exactly the rows that see it.
TEST(BlockMask, NaNReachesTheRowsThatSeeIt) {
    const Mask mask = Mask::blocks(BlockMask::of_pairs({1, 1, 70, 70}, window_with_sinks, {16, 16}));
    for (const Algorithm algorithm : {Algorithm::reference, Algorithm::flash}) {
        const Tensor q = normal({1, 1, 70, 8}, 1);
        Tensor v = normal({1, 1, 70, 8}, 2);
        v.at<float>({0, 0, 50, 3}) = std::numeric_limits<float>::quiet_NaN();
        const AttentionResult y = attention(q, q, v, {.mask = mask, .algorithm = algorithm});
        for (std::int64_t i = 0; i < 70; ++i) EXPECT_EQ(std::isnan(y.output.item({0, 0, i, 3})), i >= 50) << i;
    }
}

// The function may compute attention itself, inside of the kernels that ask it; of a key that is not finite it is asked
// pair by pair.
TEST(BlockMask, FunctionMayCallAttention) {
    const Tensor small = normal({1, 1, 5, 8}, 2, DType::bfloat16);
    for (const Isa isa : available_isas()) {
        const IsaOverride used(isa);
        for (const bool finite : {true, false}) {
            const Tensor q = normal({1, 2, 70, 40}, 1, DType::bfloat16);
            Tensor v = normal({1, 2, 70, 40}, 3, DType::bfloat16);
            if (!finite) store_element(v.data(), DType::bfloat16, 20 * 40 + 3, std::numeric_limits<double>::infinity());
            const auto run = [&](bool nested) {
                const auto allow = [&small, nested](const MaskTile& tile) {
                    if (nested) static_cast<void>(attention(small, small, small));
                    for (std::int64_t i = 0; i < tile.query_count; ++i) {
                        for (std::int64_t j = 0; j < tile.key_count; ++j) {
                            tile.allow(i, j) = tile.key_begin + j <= tile.query_begin + i ? 1 : 0;
                        }
                    }
                };
                const AttentionOptions options{.mask = Mask::blocks(BlockMask({1, 1, 70, 70}, allow, {32, 32})),
                                               .return_weights = true};
                const AttentionResult y = attention(q, q, v, options);
                return std::array{y.output, y.weights, attention_backward(q, q, q, v, y, options).query};
            };
            const auto want = run(false);
            const auto found = run(true);
            for (std::size_t i = 0; i < want.size(); ++i) EXPECT_TRUE(same_bits(found[i], want[i])) << i;
        }
    }
}

TEST(BlockMask, OutlivesAMove) {
    BlockMask from = BlockMask::of_pairs({1, 1, 5, 5}, patchwork);
    const BlockMask to = std::move(from);
    EXPECT_EQ(from.shape(), to.shape());  // NOLINT(bugprone-use-after-move)
}

TEST(BlockMask, Errors) {
    EXPECT_EQ(message_of<ShapeError>([] {
                  BlockMask::of_pairs({5, 5}, patchwork);
              }),
              "[block_mask] expected a shape [batch or 1, heads or 1, queries, keys], found [5, 5]");
    EXPECT_EQ(message_of<ValueError>([] {
                  BlockMask::of_pairs({1, 1, 5, 5}, patchwork, {0, 32});
              }),
              "[block_mask] expected blocks of at least 1 x 1, found 0 x 32");
    EXPECT_EQ(message_of<ValueError>([] {
                  BlockMask({1, 1, 5, 5}, nullptr);
              }),
              "[block_mask] expected a function that fills in tiles, found none");
    EXPECT_THROW(BlockMask::of_pairs({1, 1, 5, 5}, nullptr), ValueError);
    EXPECT_EQ(message_of<ValueError>([] {
                  BlockMask::of_pairs({1, 1, 5, 5}, patchwork).kind(0, 0, 1, 0);
              }),
              "[block_mask] expected the index of a block below [1, 1, 1, 1], found [0, 0, 1, 0]");
    const Tensor q = normal({2, 4, 5, 8}, 1);
    const Mask mask = Mask::blocks(BlockMask::of_pairs({1, 2, 5, 6}, patchwork));
    EXPECT_EQ(message_of<ShapeError>([&] { attention(q, q, q, {.mask = mask}); }),
              "[attention] expected a block mask of shape [2 or 1, 4 or 1, 5, 5], found [1, 2, 5, 6]");
}

}  // namespace
}  // namespace attend::testing
