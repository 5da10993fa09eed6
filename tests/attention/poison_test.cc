// NaN and infinity, seen and hidden: what they reach, with every instruction set, number of threads and batch.

#include "tests/support/compare.h"

#include <attend/attention/attention.h>
#include <attend/core/philox.h>
#include <attend/core/threads.h>
#include <attend/kernels/cpu/isa.h>

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace attend {
namespace {

using kernels::cpu::available_isas;
using kernels::cpu::Isa;
using kernels::cpu::IsaOverride;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

class Poison : public ::testing::TestWithParam<Isa> {
protected:
    void TearDown() override { set_num_threads(0); }

private:
    IsaOverride isa_{GetParam()};
};

INSTANTIATE_TEST_SUITE_P(Isas, Poison, ::testing::ValuesIn(available_isas()),
                         [](const auto& info) { return std::string(name_of(info.param)); });

bool same_bits(const Tensor& a, const Tensor& b) {
    return a.shape() == b.shape() &&
           std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.numel()) * size_of(a.dtype())) == 0;
}

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

TEST_P(Poison, InfiniteScoresUnderASoftCapAreTheCap) {
    const Tensor q = full({1, 1, 6, 8}, std::numeric_limits<double>::infinity(), DType::float32);
    const Tensor k = full({1, 1, 40, 8}, 1.0, DType::float32);
    const Tensor v = randn({1, 1, 40, 8}, {.seed = 3});
    const AttentionOptions options{.softcap = 5.0};
    const AttentionResult result = attention(q, k, v, options);
    EXPECT_NEAR(result.log_sum_exp.view().select(0, 0).select(0, 0).select(0, 2).item(), 5.0 + std::log(40.0), 1e-5);
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
    EXPECT_LE(testing::row_error(attention(q, k, v, options).output, want.output), 5e-6);
}

}  // namespace
}  // namespace attend
