// A few queries over many keys, from tensors and from caches, on every instruction set.
#include "tests/support/compare.h"
#include "tests/support/each_isa.h"

#include <attend/attention/attention.h>
#include <attend/attention/kv_cache.h>
#include <attend/core/error.h>
#include <attend/core/threads.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace attend::testing {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

class Decode : public EachIsa {};
INSTANTIATE_TEST_SUITE_P(Isas, Decode, each_isa(), isa_of_test);

double bound_of(DType dtype) {
    return dtype == DType::float32 ? 5e-6 : dtype == DType::bfloat16 ? 0x1p-7 : 0x1p-10;
}

/// |x|, in float64.
Tensor absolute(const Tensor& tensor) {
    Tensor result = tensor.to(DType::float64);
    for (std::int64_t i = 0; i < result.numel(); ++i) result.data<double>()[i] = std::fabs(result.data<double>()[i]);
    return result;
}

/// Against float64 on the same numbers; errors relative to sum_j w_ij |v_j|. @param algorithm the oracle, or the plain
/// path, which is within 1e-12 of it (Oracle.ForwardAndBackwardFloat64) and stands for it where sizes are many
void expect_exact(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options,
                  Algorithm algorithm) {
    const AttentionResult found = attention(q, k, v, options);
    AttentionOptions exact = options;
    exact.algorithm = algorithm;
    const Tensor q64 = q.to(DType::float64);
    const Tensor k64 = k.to(DType::float64);
    const Tensor v64 = v.to(DType::float64);
    const AttentionResult want = attention(q64, k64, v64, exact);
    const AttentionResult magnitude = attention(q64, k64, absolute(v64), exact);
    EXPECT_LE(row_error(found.output, want.output, magnitude.output), bound_of(q.dtype()));
    EXPECT_LE(row_error(found.log_sum_exp, want.log_sum_exp), 4e-6);
}

void expect_oracle(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
    expect_exact(q, k, v, options, Algorithm::reference);
}

TEST_P(Decode, EqualsTheOracle) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::float16}) {
        SCOPED_TRACE(name_of(dtype));
        for (const auto& [heads, kv_heads, queries] :
             {std::tuple(1, 1, 1), std::tuple(4, 2, 1), std::tuple(8, 1, 3), std::tuple(6, 2, 4)}) {
            for (const std::int64_t keys : {1, 15, 16, 513, 1100}) {
                SCOPED_TRACE(::testing::Message() << heads << "/" << kv_heads << " " << queries << " x " << keys);
                const std::int64_t d = keys == 513 ? 111 : 40;
                const Tensor q = normal({2, heads, queries, d}, 1, dtype);
                const Tensor k = normal({2, kv_heads, keys, d}, 2, dtype);
                const Tensor v = normal({2, kv_heads, keys, d + 3}, 3, dtype);
                expect_oracle(q, k, v, {.mask = Mask::causal_bottom_right()});
            }
        }
    }
}

TEST_P(Decode, EveryOption) {
    const Tensor q = normal({2, 4, 2, 64}, 1);
    const Tensor k = normal({2, 2, 700, 64}, 2);
    const Tensor v = normal({2, 2, 700, 64}, 3);
    const Tensor bias = normal({1, 4, 1, 700}, 4);
    const Tensor allowed = random_mask({2, 1, 2, 700}, 5, 0.6);
    Tensor slopes({4});
    for (std::int64_t h = 0; h < 4; ++h) slopes.data<float>()[h] = 0.01F * static_cast<float>(h + 1);
    expect_oracle(q, k, v, {.mask = Mask::window(300, 0)});
    expect_oracle(q, k, v, {.mask = Mask::causal(120)});
    expect_oracle(q, k, v, {.mask = Mask::key_lengths({700, 0})});
    expect_oracle(q, k, v, {.mask = Mask::boolean(allowed)});
    expect_oracle(q, k, v, {.bias = bias.view()});
    expect_oracle(q, k, v, {.alibi_slopes = slopes.view()});
    expect_oracle(q, k, v, {.scale = -0.5, .softcap = 3.0});
    expect_oracle(q, k, v, {.scale = 0.0});
    expect_oracle(q, k, v,
                  {.mask = Mask::key_lengths({650, 513}) & Mask::boolean(allowed) & Mask::window(600, {}),
                   .bias = bias.view(),
                   .alibi_slopes = slopes.view(),
                   .scale = 0.2,
                   .softcap = 5.0});
}

TEST_P(Decode, HiddenKeysMayHoldNaNAndVisibleOnesReachTheirRows) {
    const Tensor q = normal({1, 2, 2, 16}, 1);
    Tensor k = normal({1, 1, 600, 16}, 2);
    Tensor v = normal({1, 1, 600, 16}, 3);
    const AttentionOptions options{.mask = Mask::key_lengths({550}) & Mask::causal_bottom_right()};
    const AttentionResult want = attention(q, k, v, options);
    k.view().slice(2, 550, 600).fill(kNaN);
    v.view().slice(2, 550, 600).fill(kNaN);
    EXPECT_TRUE(same_bits(attention(q, k, v, options).output, want.output));
    // The last visible key of the second query is hidden from the first.
    v.view().slice(2, 549, 550).fill(kNaN);
    const AttentionResult found = attention(q, k, v, options);
    EXPECT_TRUE(same_bits(found.output.view().slice(2, 0, 1).clone(), want.output.view().slice(2, 0, 1).clone()));
    EXPECT_TRUE(std::isnan(found.output.at<float>({0, 0, 1, 0})));
    const AttentionResult none = attention(q, k, v, {.mask = Mask::key_lengths({0})});
    EXPECT_EQ(none.output.at<float>({0, 1, 1, 3}), 0.0F);
    EXPECT_EQ(none.log_sum_exp.at<float>({0, 1, 1}), -std::numeric_limits<float>::infinity());
}

TEST_P(Decode, BitsDoNotDependOnThreadsBatchOrCache) {
    for (const DType dtype : {DType::float32, DType::bfloat16}) {
        const std::vector<std::int64_t> lengths = {1300, 17, 512};
        const Tensor q = normal({3, 4, 1, 40}, 1, dtype);
        const Tensor k = normal({3, 2, 1300, 40}, 2, dtype);
        const Tensor v = normal({3, 2, 1300, 40}, 3, dtype);
        const AttentionOptions options{.mask = Mask::key_lengths(lengths)};
        set_num_threads(1);
        const AttentionResult want = attention(q, k, v, options);
        for (const int threads : {2, 3, 7}) {
            set_num_threads(threads);
            EXPECT_TRUE(same_bits(attention(q, k, v, options).output, want.output));
        }
        set_num_threads(0);
        KvCache cache({.batch = 3, .kv_heads = 2, .head_dim = 40, .capacity = 16, .dtype = dtype});
        cache.append(k, v, lengths);
        EXPECT_TRUE(same_bits(attention(q, cache).output, want.output));
        PagedKvCache paged({.kv_heads = 2, .head_dim = 40, .page_size = 48, .pages = 3, .dtype = dtype});
        std::vector<std::int64_t> sequences;
        for (std::int64_t b = 0; b < 3; ++b) {
            sequences.push_back(paged.add_sequence());
            const auto own = [&](const Tensor& t) {
                return t.view().slice(0, b, b + 1).slice(2, 0, lengths[static_cast<std::size_t>(b)]);
            };
            paged.append(std::vector{sequences.back()}, own(k), own(v));
            const AttentionResult alone = attention(q.view().slice(0, b, b + 1), own(k), own(v));
            EXPECT_TRUE(same_bits(alone.output, want.output.view().slice(0, b, b + 1).clone()));
        }
        EXPECT_TRUE(same_bits(attention(q, paged, sequences).output, want.output));
        EXPECT_TRUE(same_bits(attention(q, paged, sequences).log_sum_exp, want.log_sum_exp));
    }
}

TEST_P(Decode, StepByStepEqualsAllAtOnce) {
    const Tensor q = normal({2, 4, 40, 32}, 1);
    const Tensor k = normal({2, 2, 40, 32}, 2);
    const Tensor v = normal({2, 2, 40, 32}, 3);
    const AttentionResult all = attention(q, k, v, {.mask = Mask::causal()});
    KvCache cache({.batch = 2, .kv_heads = 2, .head_dim = 32, .capacity = 1});
    for (std::int64_t t = 0; t < 40; ++t) {
        const auto token = [&](const Tensor& x) { return x.view().slice(2, t, t + 1); };
        cache.append(token(k), token(v));
        EXPECT_LE(row_error(attention(token(q), cache).output, token(all.output)), 1e-5);
    }
    // A prompt of many queries takes the ordinary path.
    const AttentionResult prompt = attention(q, cache, {.mask = Mask::causal_bottom_right()});
    EXPECT_TRUE(same_bits(prompt.output, all.output));
    EXPECT_TRUE(same_bits(attention(q, cache, {.mask = Mask::causal_bottom_right(), .return_weights = true}).output,
                          all.output));
}

TEST_P(Decode, LeftPaddingIsNeverRead) {
    for (const std::int64_t queries : {1, 9}) {
        const Tensor q = normal({2, 2, queries, 16}, 1);
        Tensor k = normal({2, 1, 30, 16}, 2);
        Tensor v = normal({2, 1, 30, 16}, 3);
        k.view().select(0, 1).slice(1, 0, 12).fill(kNaN);
        v.view().select(0, 1).slice(1, 0, 12).fill(kNaN);
        KvCache cache({.batch = 2, .kv_heads = 1, .head_dim = 16});
        cache.append(k, v);
        cache.set_left_padding(1, 12);
        PagedKvCache paged({.kv_heads = 1, .head_dim = 16});
        const std::vector<std::int64_t> sequences = {paged.add_sequence(), paged.add_sequence()};
        paged.append(sequences, k, v);
        paged.set_left_padding(sequences[1], 12);
        const AttentionOptions options{.mask = Mask::causal_bottom_right()};
        const AttentionResult found = attention(q, cache, options);
        EXPECT_TRUE(same_bits(attention(q, paged, sequences, options).output, found.output));
        for (std::int64_t b = 0; b < 2; ++b) {
            const auto own = [&](const Tensor& t) { return t.view().slice(0, b, b + 1).slice(2, b == 1 ? 12 : 0, 30); };
            const AttentionResult alone = attention(q.view().slice(0, b, b + 1), own(k), own(v), options);
            EXPECT_TRUE(same_bits(alone.output, found.output.view().slice(0, b, b + 1).clone()));
        }
    }
}

/// Of outputs relative to sum_j w_ij |v_j| where products are of integers: a score is off by at most scale |dq| |k|_1
/// with |dq| <= max |q| / 16256, which moves weights by twice that; a weight by 1 / 131070 of the largest of 64.
double int8_bound(const Tensor& query, const Tensor& key) {
    double largest = 0.0;
    for (const double x : values(query)) largest = std::max(largest, std::fabs(x));
    double norm = 0.0;
    const std::vector<double> keys = values(absolute(key));
    const auto d = static_cast<std::size_t>(key.size(-1));
    for (std::size_t row = 0; row < keys.size(); row += d) {
        double own = 0.0;
        for (std::size_t c = row; c < row + d; ++c) own += keys[c];
        norm = std::max(norm, own);
    }
    return 2.0 * largest / 16256.0 * norm / std::sqrt(static_cast<double>(d)) + 64.0 / 131070.0;
}

// An element is off by half a scale at most; scores and outputs follow.
TEST_P(Decode, Int8IsWithinItsRounding) {
    const Tensor q = normal({1, 4, 1, 64}, 1);
    const Tensor k = normal({1, 2, 600, 64}, 2);
    const Tensor v = normal({1, 2, 600, 64}, 3);
    KvCache cache({.kv_heads = 2, .head_dim = 64, .dtype = DType::int8});
    cache.append(k, v);
    PagedKvCache paged({.kv_heads = 2, .head_dim = 64, .page_size = 32, .dtype = DType::int8});
    const std::vector<std::int64_t> sequences = {paged.add_sequence()};
    paged.append(sequences, k, v);
    // The numbers that the cache holds, exactly.
    Tensor k8({1, 2, 600, 64});
    Tensor v8({1, 2, 600, 64});
    for (std::int64_t h = 0; h < 2; ++h) {
        for (std::int64_t j = 0; j < 600; ++j) {
            const float ks = cache.key_scales().at<float>({0, h, j});
            const float vs = cache.value_scales().at<float>({0, h, j});
            for (std::int64_t c = 0; c < 64; ++c) {
                k8.at<float>({0, h, j, c}) = ks * static_cast<float>(cache.keys().at<std::int8_t>({0, h, j, c}));
                v8.at<float>({0, h, j, c}) = vs * static_cast<float>(cache.values().at<std::int8_t>({0, h, j, c}));
                EXPECT_LE(std::fabs(k8.at<float>({0, h, j, c}) - k.at<float>({0, h, j, c})), 0.5001F * ks);
            }
        }
    }
    const AttentionResult found = attention(q, cache);
    const AttentionOptions reference{.algorithm = Algorithm::reference};
    const AttentionResult want = attention(q, k8, v8, reference);
    const AttentionResult magnitude = attention(q.to(DType::float64), k8.to(DType::float64), absolute(v8), reference);
    EXPECT_LE(row_error(found.output, want.output, magnitude.output), int8_bound(q, k8));
    // What remains is the cache's own rounding, which the naive formula on the same integers has as well.
    const AttentionResult exact = attention(q, k, v, reference);
    EXPECT_LE(row_error(found.output, exact.output), 1.05 * row_error(want.output, exact.output));
    EXPECT_TRUE(same_bits(attention(q, paged, sequences).output, found.output));
    EXPECT_LE(row_error(found.output, attention(q, k, v).output), 0.05);
}

TEST_P(Decode, AwkwardSizes) {
    std::uint64_t seed = 0;
    for (const std::int64_t d : {1, 40, 59, 64, 111, 128, 256}) {
        for (const std::int64_t keys :
             d % 2 == 0 ? std::vector<std::int64_t>{15, 1023} : std::vector<std::int64_t>{511, 512}) {
            const std::int64_t dv = d == 128 ? 128 : d == 64 ? 200 : d + 5;
            const std::int64_t group = std::int64_t{1} << seed % 4;
            const std::int64_t queries = 1 + static_cast<std::int64_t>(seed / 4 % 4);
            ++seed;
            for (const DType dtype : {DType::float32, DType::bfloat16, DType::float16}) {
                SCOPED_TRACE(::testing::Message() << name_of(dtype) << " d " << d << " keys " << keys);
                const Tensor q = normal({1, 2 * group, queries, d}, 3 * seed, dtype);
                const Tensor k = normal({1, 2, keys, d}, 3 * seed + 1, dtype);
                const Tensor v = normal({1, 2, keys, dv}, 3 * seed + 2, dtype);
                expect_exact(q, k, v, {.mask = Mask::causal_bottom_right()}, Algorithm::flash);
            }
        }
    }
    expect_exact(normal({1, 4, 1, 128}, 1), normal({1, 1, 5000, 128}, 2), normal({1, 1, 5000, 128}, 3), {},
                 Algorithm::flash);
}

/// The first `count` slots of a cache's rows, multiplied by their scales.
Tensor held(const Tensor& rows, const Tensor& scales, std::int64_t count) {
    Tensor result = rows.view().slice(2, 0, count).to(DType::float64);
    if (rows.dtype() != DType::int8) return result;
    for (std::int64_t i = 0; i < result.numel(); ++i) {
        const std::int64_t row = i / rows.size(-1);
        const std::int64_t at = row / count * rows.size(2) + row % count;
        result.data<double>()[i] *= static_cast<double>(scales.data<float>()[at]);
    }
    return result;
}

TEST_P(Decode, CachesOfEveryTypeForQueriesOfEveryType) {
    for (const DType cached : {DType::float32, DType::bfloat16, DType::float16, DType::int8}) {
        for (const DType type : {DType::float32, DType::bfloat16, DType::float16}) {
            for (const std::int64_t d : {24, 59, 64, 128, 200}) {
                const std::int64_t keys = d == 59 || d == 64 ? 600 : 70;  // two splits, or one
                SCOPED_TRACE(::testing::Message() << name_of(cached) << " " << name_of(type) << " " << d);
                const Tensor q = normal({2, 6, 1, d}, 1, type);
                KvCache cache({.batch = 2, .kv_heads = 2, .head_dim = d, .value_dim = d + 3, .dtype = cached});
                cache.append(normal({2, 2, keys, d}, 2), normal({2, 2, keys, d + 3}, 3));
                const Tensor k = held(cache.keys(), cache.key_scales(), keys);
                const Tensor v = held(cache.values(), cache.value_scales(), keys);
                // The plain path stands for the oracle: see expect_exact.
                const Tensor q64 = q.to(DType::float64);
                EXPECT_LE(row_error(attention(q, cache).output, attention(q64, k, v).output,
                                    attention(q64, k, absolute(v)).output),
                          bound_of(type) + (cached == DType::int8 ? int8_bound(q, k) : 0.0));
            }
        }
    }
}

// Keys that differ by less than the query's type tells apart.
TEST_P(Decode, ManyQueriesReadTheCacheUnrounded) {
    const Tensor v = normal({1, 2, 60, 20}, 3);
    Tensor k = normal({1, 2, 60, 64}, 2);
    for (std::int64_t i = 0; i < k.numel(); ++i) k.data<float>()[i] += 100.0F;
    for (const DType cached : {DType::float32, DType::bfloat16, DType::float16, DType::int8}) {
        for (const DType type : {DType::float32, DType::bfloat16, DType::float16}) {
            SCOPED_TRACE(::testing::Message() << name_of(cached) << " " << name_of(type));
            const Tensor q = normal({1, 4, 9, 64}, 1, type);
            KvCache cache({.kv_heads = 2, .head_dim = 64, .value_dim = 20, .dtype = cached});
            cache.append(k, v);
            const Tensor held_k = held(cache.keys(), cache.key_scales(), 60);
            const Tensor held_v = held(cache.values(), cache.value_scales(), 60);
            AttentionOptions options{.mask = Mask::causal_bottom_right(), .return_weights = true};
            const AttentionResult found = attention(q, cache, options);
            options.algorithm = Algorithm::reference;
            const Tensor q64 = q.to(DType::float64);
            const AttentionResult want = attention(q64, held_k, held_v, options);
            EXPECT_EQ(found.output.dtype(), type);
            EXPECT_EQ(found.weights.dtype(), type);
            // Scores of some hundreds, whose floats are off by their last digits.
            const double bound = bound_of(type) + 2e-4;
            EXPECT_LE(row_error(found.output, want.output, attention(q64, held_k, absolute(held_v), options).output),
                      bound);
            EXPECT_LE(row_error(found.weights, want.weights), bound);
        }
    }
}

// A row's bits do not depend on the rows that share its keys.
TEST_P(Decode, GroupsEqualSingleHeads) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::int8}) {
        const Tensor q = normal({1, 7, 1, 72}, 1, dtype == DType::int8 ? DType::float32 : dtype);
        KvCache cache({.batch = 1, .kv_heads = 1, .head_dim = 72, .dtype = dtype});
        cache.append(normal({1, 1, 777, 72}, 2), normal({1, 1, 777, 72}, 3));
        const AttentionResult together = attention(q, cache);
        for (std::int64_t h = 0; h < 7; ++h) {
            const AttentionResult alone = attention(q.view().slice(1, h, h + 1), cache);
            EXPECT_TRUE(same_bits(alone.output, together.output.view().slice(1, h, h + 1).clone()));
            EXPECT_TRUE(same_bits(alone.log_sum_exp, together.log_sum_exp.view().slice(1, h, h + 1).clone()));
        }
    }
}

// A bias of -inf is arithmetic, in a whole split as well: the value is read.
TEST_P(Decode, BiasOfMinusInfinityReadsTheValue) {
    const Tensor q = normal({1, 2, 1, 16}, 1);
    const Tensor k = normal({1, 1, 1100, 16}, 2);
    Tensor v = normal({1, 1, 1100, 16}, 3);
    Tensor bias = zeros({2, 1, 1100});
    bias.view().select(0, 0).slice(1, 0, 600).fill(-std::numeric_limits<double>::infinity());
    expect_oracle(q, k, v, {.bias = bias.view()});
    v.at<float>({0, 0, 3, 5}) = static_cast<float>(kNaN);
    const AttentionResult found = attention(q, k, v, {.bias = bias.view()});
    EXPECT_TRUE(std::isnan(found.output.at<float>({0, 0, 0, 5})));
    EXPECT_FALSE(std::isnan(found.output.at<float>({0, 0, 0, 6})));
    EXPECT_TRUE(std::isnan(found.output.at<float>({0, 1, 0, 5})));
}

// Integers have no NaN: a row's scale carries it.
TEST_P(Decode, NaNInAnInt8CacheReachesTheRowsThatAttend) {
    const Tensor q = normal({1, 1, 2, 16}, 1);
    for (const double bad : {kNaN, std::numeric_limits<double>::infinity()}) {
        for (const bool in_keys : {true, false}) {
            Tensor k = normal({1, 1, 40, 16}, 2);
            Tensor v = normal({1, 1, 40, 16}, 3);
            (in_keys ? k : v).at<float>({0, 0, 39, 3}) = static_cast<float>(bad);
            KvCache cache({.kv_heads = 1, .head_dim = 16, .dtype = DType::int8});
            cache.append(k, v);
            const AttentionResult y = attention(q, cache, {.mask = Mask::causal_bottom_right()});
            EXPECT_FALSE(std::isnan(y.output.at<float>({0, 0, 0, 3})));
            EXPECT_TRUE(std::isnan(y.output.at<float>({0, 0, 1, 3})));
        }
    }
}

// What a scale in float32 cannot express: rows become zeros or NaN, and others keep their bound.
TEST(KvCache, Int8RowsOfAnyMagnitude) {
    const std::vector<double> magnitudes = {0.0,   1e-300, 1e-45, 2e-43, 1e-37,  2e-36, 1e-30,
                                            1e-20, 1.0,    1e30,  3e38,  3.4e38, 1e39,  1e300};
    const auto count = static_cast<std::int64_t>(magnitudes.size());
    Tensor tokens = normal({1, 1, count, 8}, 1, DType::float64);
    for (std::int64_t t = 0; t < count; ++t) {
        for (std::int64_t c = 0; c < 8; ++c) {
            double& x = tokens.at<double>({0, 0, t, c});
            x = std::clamp(x, -1.0, 1.0) * magnitudes[static_cast<std::size_t>(t)];
            if (c == 5) x = -magnitudes[static_cast<std::size_t>(t)];
        }
    }
    KvCache cache({.kv_heads = 1, .head_dim = 8, .capacity = count, .dtype = DType::int8});
    cache.append(tokens, tokens);
    const Tensor kept = held(cache.values(), cache.value_scales(), count);
    EXPECT_TRUE(same_bits(cache.keys(), cache.values()));
    for (std::int64_t t = 0; t < count; ++t) {
        const double magnitude = magnitudes[static_cast<std::size_t>(t)];
        SCOPED_TRACE(magnitude);
        const float scale = cache.value_scales().at<float>({0, 0, t});
        for (std::int64_t c = 0; c < 8; ++c) {
            const double x = kept.at<double>({0, 0, t, c});
            if (magnitude > 3.5e38) {
                EXPECT_TRUE(std::isnan(x));
            } else if (magnitude < 1.4e-36) {
                EXPECT_EQ(x, 0.0);
            } else {
                EXPECT_LE(std::fabs(x - tokens.at<double>({0, 0, t, c})), 0.5001 * static_cast<double>(scale));
                EXPECT_TRUE(std::isfinite(static_cast<float>(x)));
            }
        }
    }
    EXPECT_EQ(cache.value_scales().at<float>({0, 0, 4}), 0.0F);
    // One row reaches those that attend to it, by a few queries and by many.
    for (const std::int64_t queries : {2, 9}) {
        const Tensor q = zeros({1, 1, queries, 8});
        const AttentionResult y = attention(q, cache, {.mask = Mask::causal_bottom_right().with_query_offset(9)});
        EXPECT_TRUE(std::isfinite(y.output.at<float>({0, 0, 0, 5})));
        const AttentionResult last = attention(q, cache, {.mask = Mask::causal_bottom_right()});
        EXPECT_TRUE(std::isnan(last.output.at<float>({0, 0, queries - 1, 5})));
    }
}

TEST(KvCache, ReordersTruncatesAndClears) {
    const Tensor k = normal({2, 1, 5, 8}, 1);
    const Tensor v = normal({2, 1, 5, 8}, 2);
    const Tensor q = normal({3, 1, 1, 8}, 3);
    KvCache cache({.batch = 2, .kv_heads = 1, .head_dim = 8, .capacity = 2});
    cache.append(k, v, std::vector<std::int64_t>{5, 3});
    cache.reorder(std::vector<std::int64_t>{1, 0, 1});
    EXPECT_EQ(cache.options().batch, 3);
    EXPECT_EQ(cache.length(0), 3);
    EXPECT_EQ(cache.length(1), 5);
    const AttentionResult y = attention(q, cache);
    const auto own = [&](const Tensor& t) { return t.view().slice(0, 1, 2).slice(2, 0, 3); };
    EXPECT_TRUE(
        same_bits(attention(q.view().slice(0, 0, 1), own(k), own(v)).output, y.output.view().slice(0, 0, 1).clone()));
    cache.truncate(1, 2);
    EXPECT_EQ(cache.length(1), 2);
    cache.clear();
    EXPECT_EQ(cache.length(1), 0);
    EXPECT_EQ(attention(q, cache).output.at<float>({2, 0, 0, 0}), 0.0F);
}

TEST(PagedKvCache, ForksShareAndCopyOnWrite) {
    const Tensor k = normal({1, 1, 20, 8}, 1);
    const Tensor v = normal({1, 1, 20, 8}, 2);
    const Tensor more = normal({2, 1, 1, 8}, 3);
    const Tensor q = normal({2, 1, 1, 8}, 4);
    PagedKvCache cache({.kv_heads = 1, .head_dim = 8, .page_size = 16, .pages = 3, .grows = false});
    const std::int64_t a = cache.add_sequence();
    cache.append(std::vector{a}, k, v);
    const std::int64_t b = cache.fork(a);
    EXPECT_EQ(cache.free_pages(), 1);  // nothing was copied
    cache.append(std::vector{a, b}, more, more);
    EXPECT_EQ(cache.free_pages(), 0);  // one of the two got a page of its own
    EXPECT_EQ(cache.block_table(a)[0], cache.block_table(b)[0]);
    EXPECT_NE(cache.block_table(a)[1], cache.block_table(b)[1]);
    const AttentionResult y = attention(q, cache, std::vector{a, b});
    for (std::int64_t s = 0; s < 2; ++s) {
        Tensor keys = Tensor::empty({1, 1, 21, 8});
        Tensor values = Tensor::empty({1, 1, 21, 8});
        keys.view().slice(2, 0, 20).copy_from(k);
        values.view().slice(2, 0, 20).copy_from(v);
        keys.view().slice(2, 20, 21).copy_from(more.view().slice(0, s, s + 1));
        values.view().slice(2, 20, 21).copy_from(more.view().slice(0, s, s + 1));
        EXPECT_TRUE(same_bits(attention(q.view().slice(0, s, s + 1), keys, values).output,
                              y.output.view().slice(0, s, s + 1).clone()));
    }
    // Exhausted: nothing changes, and pages come back when a sequence is freed.
    const Tensor many = normal({1, 1, 16, 8}, 5);
    EXPECT_EQ(message_of<ValueError>([&] { cache.append(std::vector{a}, many, many); }),
              "[kv_cache] expected 1 free pages of the pool's 3, found 0");
    EXPECT_EQ(cache.length(a), 21);
    cache.free_sequence(b);
    EXPECT_EQ(cache.free_pages(), 1);
    cache.append(std::vector{a}, many, many);
    EXPECT_EQ(cache.length(a), 37);
    EXPECT_THROW(cache.append(std::vector{b}, many, many), ValueError);
    EXPECT_EQ(cache.add_sequence(), b);
}

// Sequences that are not named keep their tokens; the others are those that a batch of their own would have.
TEST(KvCache, AppendsToSomeSequences) {
    for (const DType dtype : {DType::float32, DType::int8}) {
        const Tensor k = normal({3, 2, 5, 8}, 1);
        const Tensor v = normal({3, 2, 5, 6}, 2);
        const Tensor more_k = normal({2, 2, 4, 8}, 3);
        const Tensor more_v = normal({2, 2, 4, 6}, 4);
        const Tensor q = normal({3, 4, 1, 8}, 5);
        const KvCacheOptions sizes{
            .batch = 3, .kv_heads = 2, .head_dim = 8, .value_dim = 6, .capacity = 5, .dtype = dtype};
        KvCache cache(sizes);
        cache.append(k, v);
        cache.append(std::vector<std::int64_t>{2, 0}, more_k, more_v);
        EXPECT_EQ(cache.length(0), 9);
        EXPECT_EQ(cache.length(1), 5);
        EXPECT_EQ(cache.length(2), 9);
        // The same by counts, with tokens for the sequence that gets none.
        Tensor fed_k = Tensor::empty({3, 2, 4, 8});
        Tensor fed_v = Tensor::empty({3, 2, 4, 6});
        poison(fed_k);
        poison(fed_v);
        for (const auto& [row, sequence] : {std::pair(0, 2), std::pair(1, 0)}) {
            fed_k.view().select(0, sequence).copy_from(more_k.view().select(0, row));
            fed_v.view().select(0, sequence).copy_from(more_v.view().select(0, row));
        }
        KvCache counted(sizes);
        counted.append(k, v);
        counted.append(fed_k, fed_v, std::vector<std::int64_t>{4, 0, 4});
        EXPECT_TRUE(same_bits(attention(q, cache).output, attention(q, counted).output));

        cache.append(std::span<const std::int64_t>(), normal({0, 2, 4, 8}, 1), normal({0, 2, 4, 6}, 1));
        const auto append = [&](const std::vector<std::int64_t>& sequences) {
            cache.append(sequences, more_k, more_v);
        };
        EXPECT_EQ(message_of<ValueError>([&] { append({0, 3}); }), "[kv_cache] expected a sequence in [0, 3), found 3");
        EXPECT_EQ(message_of<ValueError>([&] {
                      append({1, 1});
                  }),
                  "[kv_cache] expected each sequence once, found 1 again");
        EXPECT_EQ(message_of<ShapeError>([&] { append({1}); }),
                  "[kv_cache] expected key of shape [1, 2, *, 8], found [2, 2, 4, 8]");
        EXPECT_EQ(cache.length(0), 9);
        EXPECT_EQ(cache.length(1), 5);
    }
}

TEST(PagedKvCache, TruncateGivesPagesBack) {
    const Tensor k = normal({1, 1, 40, 8}, 1);
    const Tensor v = normal({1, 1, 40, 8}, 2);
    const Tensor other_k = normal({1, 1, 10, 8}, 3);
    const Tensor other_v = normal({1, 1, 10, 8}, 4);
    const Tensor q = normal({1, 1, 1, 8}, 5);
    PagedKvCache cache({.kv_heads = 1, .head_dim = 8, .page_size = 16, .pages = 5, .grows = false});
    const auto expect_tokens = [&](std::int64_t sequence, std::int64_t first, bool others) {
        KvCache want({.batch = 1, .kv_heads = 1, .head_dim = 8});
        want.append(k.view().slice(2, 0, first), v.view().slice(2, 0, first));
        if (others) want.append(other_k, other_v);
        EXPECT_EQ(cache.length(sequence), want.length(0));
        EXPECT_TRUE(same_bits(attention(q, cache, std::vector{sequence}).output, attention(q, want).output));
    };
    const std::int64_t a = cache.add_sequence();
    cache.append(std::vector{a}, k, v);
    const std::int64_t b = cache.fork(a);
    EXPECT_EQ(cache.free_pages(), 2);

    // Pages that the fork has as well stay; the last that is kept is shared, and copied when it is written to.
    cache.truncate(a, 20);
    EXPECT_EQ(cache.free_pages(), 2);
    EXPECT_EQ(cache.block_table(a).size(), 2U);
    cache.append(std::vector{a}, other_k, other_v);
    EXPECT_EQ(cache.free_pages(), 1);
    EXPECT_EQ(cache.block_table(a)[0], cache.block_table(b)[0]);
    EXPECT_NE(cache.block_table(a)[1], cache.block_table(b)[1]);
    expect_tokens(a, 20, true);
    expect_tokens(b, 40, false);

    // What nobody else has comes back: a page that ends where the sequence does is kept, one behind it is not.
    cache.truncate(b, 32);
    EXPECT_EQ(cache.free_pages(), 2);
    cache.truncate(b, 16);
    EXPECT_EQ(cache.free_pages(), 3);
    expect_tokens(b, 16, false);
    cache.append(std::vector{b}, other_k, other_v);
    EXPECT_EQ(cache.free_pages(), 2);
    expect_tokens(b, 16, true);
    expect_tokens(a, 20, true);

    // Both at once, from different places of the page that they share.
    cache.free_sequence(b);
    const std::int64_t c = cache.fork(a);
    cache.truncate(c, 18);
    cache.append(std::vector{c}, other_k, other_v);
    expect_tokens(c, 18, true);
    expect_tokens(a, 20, true);

    cache.set_left_padding(a, 10);
    cache.truncate(a, 4);
    EXPECT_EQ(cache.left_padding(a), 4);
    cache.truncate(a, 0);
    EXPECT_TRUE(cache.block_table(a).empty());
    EXPECT_EQ(message_of<ValueError>([&] { cache.truncate(c, 29); }),
              "[kv_cache] expected a length in [0, 28], found 29");
    EXPECT_EQ(message_of<ValueError>([&] { cache.truncate(c, -1); }),
              "[kv_cache] expected a length in [0, 28], found -1");
    EXPECT_THROW(cache.truncate(2, 0), ValueError);
    cache.free_sequence(a);
    cache.free_sequence(c);
    EXPECT_EQ(cache.free_pages(), 5);
}

TEST(KvCache, Errors) {
    EXPECT_EQ(message_of<DTypeError>([] { KvCache({.dtype = DType::int64}); }),
              "[kv_cache] expected a dtype of float32, bfloat16, float16 or int8, found int64");
    EXPECT_EQ(message_of<ValueError>([] { PagedKvCache({.page_size = 24}); }),
              "[kv_cache] expected a page size that is a multiple of 16, found 24");
    KvCache cache({.batch = 1, .kv_heads = 2, .head_dim = 8});
    const Tensor wrong = normal({1, 1, 3, 8}, 1);
    EXPECT_EQ(message_of<ShapeError>([&] { cache.append(wrong, wrong); }),
              "[kv_cache] expected key of shape [1, 2, *, 8], found [1, 1, 3, 8]");
    const Tensor tokens = normal({1, 2, 3, 8}, 1);
    EXPECT_THROW(cache.append(tokens, tokens, std::vector<std::int64_t>{4}), ValueError);
    cache.append(tokens, tokens);
    EXPECT_THROW(cache.set_left_padding(0, 4), ValueError);
    EXPECT_THROW(cache.truncate(0, 4), ValueError);
    EXPECT_THROW(static_cast<void>(cache.length(1)), ValueError);
    EXPECT_EQ(message_of<ShapeError>([&] {
                  attention(normal({1, 2, 1, 9}, 1), cache);
              }),
              "[attention] expected query of shape [1, heads, length, 8], found [1, 2, 1, 9]");
    for (const std::int64_t queries : {1, 3, 9}) {
        const Tensor q = normal({1, 2, queries, 8}, 1);
        EXPECT_EQ(message_of<ValueError>([&] {
                      attention(q, cache, {.mask = Mask::packed({0, 1, 3})});
                  }),
                  "[attention] expected a mask without packed sequences for a cache, which keeps its sequences apart, "
                  "found Mask::packed");
        EXPECT_EQ(message_of<ValueError>([&] { attention(q, cache, {.mask = Mask::key_lengths({3})}); }),
                  "[attention] expected a mask without key lengths for a cache, which knows its own, found "
                  "Mask::key_lengths");
    }
}

}  // namespace
}  // namespace attend::testing
