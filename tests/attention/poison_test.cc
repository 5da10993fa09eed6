// NaN and infinity, seen and hidden: what they reach, with every instruction set, number of threads and batch.

#include "tests/support/compare.h"
#include "tests/support/each_isa.h"

#include <attend/attention/attention.h>
#include <attend/core/philox.h>
#include <attend/core/threads.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace attend::testing {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

class Poison : public EachIsa {};
INSTANTIATE_TEST_SUITE_P(Isas, Poison, each_isa(), isa_of_test);

/// Rows of [1, 1, L, d] that hold a NaN.
std::vector<std::int64_t> rows_with_nan(const Tensor& tensor) {
    std::vector<std::int64_t> rows;
    for (std::int64_t i = 0; i < tensor.size(2); ++i) {
        const TensorView row = tensor.view().select(0, 0).select(0, 0).select(0, i);
        bool any = false;
        for (std::int64_t c = 0; c < tensor.size(3); ++c) any = any || std::isnan(row.select(0, c).item());
        if (any) rows.push_back(i);
    }
    return rows;
}

TEST_P(Poison, OfAValueReachesTheQueriesThatSeeItWhateverTheThreads) {
    const std::int64_t length = 145;
    const Tensor q = randn({1, 1, length, 16}, {.seed = 1});
    const Tensor k = randn({1, 1, length, 16}, {.seed = 2});
    Tensor v = randn({1, 1, length, 16}, {.seed = 3});
    v.view().select(0, 0).select(0, 0).select(0, 90).select(0, 5).fill(kNaN);
    const AttentionOptions options{.mask = Mask::causal() & Mask::window(50, {})};
    std::vector<std::int64_t> expected;
    for (std::int64_t i = 90; i <= 140; ++i) expected.push_back(i);
    set_num_threads(1);
    const AttentionResult one = attention(q, k, v, options);
    EXPECT_EQ(rows_with_nan(one.output), expected);
    for (const int threads : {2, 3, 7}) {
        set_num_threads(threads);
        EXPECT_TRUE(same_bits(attention(q, k, v, options).output, one.output)) << threads << " threads";
    }
}

TEST_P(Poison, OfAValueReachesNoSingleQueryThatDoesNotSeeIt) {
    const Tensor q = randn({1, 1, 1, 16}, {.seed = 1});
    const Tensor k = randn({1, 1, 145, 16}, {.seed = 2});
    Tensor v = randn({1, 1, 145, 16}, {.seed = 3});
    v.view().select(0, 0).select(0, 0).select(0, 90).fill(kNaN);
    AttentionOptions options{.mask = Mask::causal(144) & Mask::window(50, {})};
    EXPECT_TRUE(rows_with_nan(attention(q, k, v, options).output).empty());
    options.return_weights = true;
    EXPECT_TRUE(rows_with_nan(attention(q, k, v, options).output).empty());
    options.return_weights = false;
    options.dropout = 0.1;
    EXPECT_TRUE(rows_with_nan(attention(q, k, v, options).output).empty());
}

TEST_P(Poison, OfOneSequenceLeavesGradientsOfOthersTheirBits) {
    Tensor q = randn({2, 2, 40, 16}, {.seed = 1});
    const Tensor k = randn({2, 2, 40, 16}, {.seed = 2});
    const Tensor v = randn({2, 2, 40, 16}, {.seed = 3});
    const Tensor g = randn({2, 2, 40, 16}, {.seed = 4});
    const AttentionOptions options{.mask = Mask::causal()};
    const AttentionGradients clean = attention_backward(g, q, k, v, attention(q, k, v, options), options);
    q.view().select(0, 0).select(0, 1).select(0, 7).fill(kNaN);
    const AttentionGradients found = attention_backward(g, q, k, v, attention(q, k, v, options), options);
    const auto second = [](const Tensor& tensor) { return tensor.view().slice(0, 1, 2).clone(); };
    EXPECT_TRUE(same_bits(second(found.query), second(clean.query)));
    EXPECT_TRUE(same_bits(second(found.key), second(clean.key)));
    EXPECT_TRUE(same_bits(second(found.value), second(clean.value)));
    // The row itself is NaN; those before it, which it does not see and which do not see it, are not.
    EXPECT_TRUE(std::isnan(found.query.view().select(0, 0).select(0, 1).select(0, 7).select(0, 0).item()));
    EXPECT_FALSE(std::isnan(found.query.view().select(0, 0).select(0, 1).select(0, 6).select(0, 0).item()));
}

bool any_nan(const Tensor& tensor) {
    const std::vector<double> all = values(tensor);
    return std::any_of(all.begin(), all.end(), [](double x) { return std::isnan(x); });
}

// An attended score of -inf has no weight of its own: it shares the row's NaN. What is hidden has the weight 0.
TEST_P(Poison, WeightsOfARowWithNaNAreTheOracles) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::float64}) {
        for (const double dropout : {0.0, 0.3}) {
            const Tensor q = normal({1, 2, 70, 8}, 1, dtype);
            Tensor k = normal({1, 2, 70, 8}, 2, dtype);
            const Tensor v = normal({1, 2, 70, 8}, 3, dtype);
            k.view().select(0, 0).select(0, 1).select(0, 40).fill(kNaN);
            Tensor bias = zeros({1, 2, 1, 70});
            bias.view().slice(3, 5, 8).fill(-kInfinity);
            bias.view().slice(3, 39, 42).fill(-kInfinity);
            const Tensor allowed = random_mask({1, 1, 70, 70}, 4, 0.7);
            for (const Mask& mask : {Mask::none(), Mask::causal(), Mask::boolean(allowed)}) {
                AttentionOptions options{.mask = mask, .bias = bias.view(), .dropout = dropout, .return_weights = true};
                const AttentionResult found = attention(q, k, v, options);
                options.algorithm = Algorithm::reference;
                const AttentionResult want = attention(q, k, v, options);
                EXPECT_TRUE(any_nan(want.weights));
                EXPECT_LE(row_error(found.weights, want.weights), dtype == DType::bfloat16 ? 0x1p-6 : 1e-5);
            }
        }
    }
}

AttentionGradients gradients_of(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& g,
                                AttentionOptions options, Algorithm algorithm) {
    options.algorithm = algorithm;
    return attention_backward(g, q, k, v, attention(q, k, v, options), options);
}

// A row that sees keys, all with scores of -inf, has gradients of 0, not 0 times the infinities that made them so.
TEST_P(Poison, RowsWithoutWeightsHaveNoGradients) {
    const auto expect_oracle = [](const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& g,
                                  const AttentionOptions& options) {
        const AttentionGradients found = gradients_of(q, k, v, g, options, Algorithm::automatic);
        const AttentionGradients want = gradients_of(q, k, v, g, options, Algorithm::reference);
        const double bound = q.dtype() == DType::bfloat16 ? 0.05 : 1e-4;
        EXPECT_LE(row_error(found.query, want.query), bound);
        EXPECT_LE(row_error(found.key, want.key), bound);
        EXPECT_LE(row_error(found.value, want.value), bound);
        if (options.bias) {
            EXPECT_LE(row_error(found.bias, want.bias), bound);
        }
        // The first row is the dead one.
        const std::vector<double> dead = values(found.query.view().slice(2, 0, 1));
        EXPECT_TRUE(std::all_of(dead.begin(), dead.end(), [](double x) { return x == 0.0; }));
    };
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::float64}) {
        SCOPED_TRACE(name_of(dtype));
        Tensor q = normal({1, 2, 20, 8}, 1, dtype);
        Tensor k = normal({1, 2, 70, 8}, 2, dtype);
        const Tensor v = normal({1, 2, 70, 8}, 3, dtype);
        const Tensor g = normal({1, 2, 20, 8}, 4, dtype);
        // Every row of both heads dies of the keys' infinity; nothing is masked.
        q.view().slice(3, 2, 3).fill(-1.0);
        k.view().slice(3, 2, 3).fill(kInfinity);
        expect_oracle(q, k, v, g, {});
        // The first dies of it alone, since the others do not see those keys; or of its bias as well.
        Tensor mixed = normal({1, 2, 70, 8}, 5, dtype);
        mixed.view().slice(2, 0, 40).slice(3, 2, 3).fill(kInfinity);
        Tensor allowed = zeros({1, 1, 20, 70}, DType::boolean);
        allowed.view().slice(2, 0, 1).slice(3, 0, 40).fill(1.0);
        allowed.view().slice(2, 1, 20).slice(3, 40, 70).fill(1.0);
        expect_oracle(q, mixed, v, g, {.mask = Mask::boolean(allowed)});
        Tensor bias = zeros({1, 2, 20, 70});
        bias.view().slice(2, 0, 1).fill(-kInfinity);
        expect_oracle(q, mixed, v, g, {.bias = bias.view()});
        expect_oracle(q, mixed, v, g, {.mask = Mask::boolean(allowed), .bias = bias.view()});
    }
}

// Rows are looked through by many threads, in parts.
TEST_P(Poison, InLongTensorsIsFoundWhateverTheThreads) {
    const Tensor q = normal({1, 1, 30, 8}, 1);
    const Tensor g = normal({1, 1, 30, 8}, 4);
    Tensor allowed = Tensor::empty({1, 1, 1, 2500}, DType::boolean);
    allowed.view().fill(1.0);
    for (const std::int64_t row : {1, 1500, 2499}) allowed.view().slice(3, row, row + 1).fill(0.0);
    const AttentionOptions options{.mask = Mask::boolean(allowed)};
    for (const bool seen : {false, true}) {
        Tensor k = normal({1, 1, 2500, 8}, 2);
        Tensor v = normal({1, 1, 2500, 8}, 3);
        set_num_threads(1);
        const AttentionGradients clean = gradients_of(q, k, v, g, options, Algorithm::automatic);
        for (const std::int64_t row : {1, 1500, 2499}) {
            k.view().slice(2, row, row + 1).fill(kNaN);
            v.view().slice(2, row, row + 1).fill(kInfinity);
        }
        if (seen) v.view().slice(2, 2000, 2001).slice(3, 4, 5).fill(kInfinity);
        const AttentionGradients one = gradients_of(q, k, v, g, options, Algorithm::automatic);
        if (!seen) {
            EXPECT_TRUE(same_bits(one.query, clean.query));
        }
        const AttentionGradients want = gradients_of(q, k, v, g, options, Algorithm::reference);
        EXPECT_LE(row_error(one.query, want.query), 1e-4);
        EXPECT_LE(row_error(one.key, want.key), 1e-4);
        EXPECT_LE(row_error(one.value, want.value), 1e-4);
        for (const int threads : {2, 3, 7}) {
            set_num_threads(threads);
            const AttentionGradients found = gradients_of(q, k, v, g, options, Algorithm::automatic);
            EXPECT_TRUE(same_bits(found.query, one.query)) << threads << " threads";
            EXPECT_TRUE(same_bits(found.key, one.key)) << threads << " threads";
            EXPECT_TRUE(same_bits(found.value, one.value)) << threads << " threads";
        }
    }
}

TEST_P(Poison, InfiniteScoresUnderASoftCapAreTheCap) {
    const Tensor q = full({1, 1, 6, 8}, kInfinity, DType::float32);
    const Tensor k = full({1, 1, 40, 8}, 1.0, DType::float32);
    const Tensor v = randn({1, 1, 40, 8}, {.seed = 3});
    const AttentionOptions options{.softcap = 5.0};
    const AttentionResult result = attention(q, k, v, options);
    EXPECT_NEAR(result.log_sum_exp.view().select(0, 0).select(0, 0).select(0, 2).item(), 5.0 + std::log(40.0), 1e-5);
}

// Whole panels and a half one, seen and hidden, one head and a group's.
TEST_P(Poison, OfQueriesAndKeysIsTheOracles) {
    for (const double poison : {kNaN, kInfinity, -kInfinity}) {
        for (const bool hidden : {false, true}) {
            Tensor q = randn({1, 2, 45, 40}, {.seed = 1});
            Tensor k = randn({1, 1, 77, 40}, {.seed = 2});
            const Tensor v = randn({1, 1, 77, 24}, {.seed = 3});
            q.view().select(0, 0).select(0, 1).select(0, 37).select(0, 33).fill(poison);
            // Of a single number, so that an infinite score is not a sum of both signs, which is NaN.
            for (const std::int64_t key : {3, 40, 76}) {
                k.view().select(0, 0).select(0, 0).select(0, key).select(0, 17).fill(poison);
            }
            Tensor allowed = full({1, 1, 45, 77}, 1.0, DType::boolean);
            for (std::int64_t key = 0; key < 77; ++key) {
                const bool seen = !hidden || (key != 3 && key != 40);
                allowed.view().select(0, 0).select(0, 0).slice(1, key, key + 1).fill(seen ? 1.0 : 0.0);
            }
            const AttentionOptions options{.mask = Mask::boolean(allowed.view()) & Mask::causal(20)};
            AttentionOptions reference = options;
            reference.algorithm = Algorithm::reference;
            const AttentionResult want = attention(q, k, v, reference);
            const AttentionResult found = attention(q, k, v, options);
            for (std::int64_t i = 0; i < want.output.numel(); ++i) {
                const float expected = want.output.data<float>()[i];
                ASSERT_EQ(std::isnan(found.output.data<float>()[i]), std::isnan(expected)) << i;
                if (std::isnan(expected)) continue;
                ASSERT_NEAR(found.output.data<float>()[i], expected, 1e-5) << i;
            }
        }
    }
}

#if defined(__x86_64__)
TEST_P(Poison, PairsWhoseFirstNumberIsZeroAreNotFlushed) {
    // As floats, pairs of bfloat16 whose second number is 0 are subnormal.
    Tensor q = randn({1, 1, 20, 16}, {.seed = 1, .dtype = DType::bfloat16});
    const Tensor k = randn({1, 1, 40, 16}, {.seed = 2, .dtype = DType::bfloat16});
    const Tensor v = randn({1, 1, 40, 16}, {.seed = 3, .dtype = DType::bfloat16});
    for (std::int64_t c = 1; c < 16; c += 2) {
        q.view().select(0, 0).select(0, 0).slice(1, c, c + 1).fill(0.0);
    }
    const AttentionResult want = attention(q, k, v);
    const unsigned control = _mm_getcsr();
    _mm_setcsr(control | 0x8040U);  // flush to zero, denormals are zero
    set_num_threads(1);
    const AttentionResult found = attention(q, k, v);
    _mm_setcsr(control);
    EXPECT_TRUE(same_bits(found.output, want.output));
}
#endif

TEST_P(Poison, AScoreFunctionMayComputeAttention) {
    const Tensor q = randn({1, 2, 13, 16}, {.seed = 1});
    const Tensor k = randn({1, 2, 70, 16}, {.seed = 2});
    const Tensor v = randn({1, 2, 70, 16}, {.seed = 3});
    const Tensor inner = randn({1, 1, 200, 64}, {.seed = 4});  // takes more scratch
    const AttentionResult want = attention(q, k, v);
    AttentionOptions options;
    options.score = ScoreFunction{[&](const ScoreTile&) { static_cast<void>(attention(inner, inner, inner)); }};
    EXPECT_LE(row_error(attention(q, k, v, options).output, want.output), 5e-6);
}

}  // namespace
}  // namespace attend::testing
