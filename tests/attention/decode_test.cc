// A few queries over many keys, from tensors and from caches, on every instruction set.
#include "tests/support/compare.h"
#include "tests/support/each_isa.h"

#include <attend/attention/attention.h>
#include <attend/attention/kv_cache.h>
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
        for (const auto& [heads, kv_heads, queries] : {std::tuple(1, 1, 1), std::tuple(4, 2, 1), std::tuple(8, 1, 3),
                                                       std::tuple(6, 2, 4), std::tuple(10, 1, 4)}) {
            for (const std::int64_t keys : {1, 15, 16, 1025, 1300}) {
                SCOPED_TRACE(::testing::Message() << heads << "/" << kv_heads << " " << queries << " x " << keys);
                const std::int64_t d = keys == 1025 ? 111 : 40;
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
    const Tensor k = normal({2, 2, 1200, 64}, 2);
    const Tensor v = normal({2, 2, 1200, 64}, 3);
    const Tensor bias = normal({1, 4, 1, 1200}, 4);
    const Tensor allowed = random_mask({2, 1, 2, 1200}, 5, 0.6);
    Tensor slopes({4});
    for (std::int64_t h = 0; h < 4; ++h) slopes.data<float>()[h] = 0.01F * static_cast<float>(h + 1);
    expect_oracle(q, k, v, {.mask = Mask::window(800, 0)});
    expect_oracle(q, k, v, {.mask = Mask::causal(1030)});
    expect_oracle(q, k, v, {.mask = Mask::key_lengths({1200, 0})});
    expect_oracle(q, k, v, {.mask = Mask::boolean(allowed)});
    expect_oracle(q, k, v, {.bias = bias.view()});
    expect_oracle(q, k, v, {.alibi_slopes = slopes.view()});
    expect_oracle(q, k, v, {.scale = -0.5, .softcap = 3.0});
    expect_oracle(q, k, v, {.scale = 0.0});
    expect_oracle(q, k, v,
                  {.mask = Mask::key_lengths({1150, 1025}) & Mask::boolean(allowed) & Mask::window(1100, {}),
                   .bias = bias.view(),
                   .alibi_slopes = slopes.view(),
                   .scale = 0.2,
                   .softcap = 5.0});
}

TEST_P(Decode, HiddenKeysMayHoldNaNAndVisibleOnesReachTheirRows) {
    const Tensor q = normal({1, 2, 2, 16}, 1);
    Tensor k = normal({1, 1, 1100, 16}, 2);
    Tensor v = normal({1, 1, 1100, 16}, 3);
    const AttentionOptions options{.mask = Mask::key_lengths({1050}) & Mask::causal_bottom_right()};
    const AttentionResult want = attention(q, k, v, options);
    k.view().slice(2, 1050, 1100).fill(kNaN);
    v.view().slice(2, 1050, 1100).fill(kNaN);
    EXPECT_TRUE(same_bits(attention(q, k, v, options).output, want.output));
    // The last visible key of the second query is hidden from the first.
    v.view().slice(2, 1049, 1050).fill(kNaN);
    const AttentionResult found = attention(q, k, v, options);
    EXPECT_TRUE(same_bits(found.output.view().slice(2, 0, 1).clone(), want.output.view().slice(2, 0, 1).clone()));
    EXPECT_TRUE(std::isnan(found.output.at<float>({0, 0, 1, 0})));
    const AttentionResult none = attention(q, k, v, {.mask = Mask::key_lengths({0})});
    EXPECT_EQ(none.output.at<float>({0, 1, 1, 3}), 0.0F);
    EXPECT_EQ(none.log_sum_exp.at<float>({0, 1, 1}), -std::numeric_limits<float>::infinity());
}

TEST_P(Decode, BitsDoNotDependOnThreadsBatchOrCache) {
    for (const DType dtype : {DType::float32, DType::bfloat16}) {
        // Of several splits, and short ones that share a unit of work.
        const std::vector<std::int64_t> lengths = {1300, 17, 1024, 3, 1100, 0, 33};
        const auto batch = static_cast<std::int64_t>(lengths.size());
        const Tensor q = normal({batch, 4, 1, 40}, 1, dtype);
        const Tensor k = normal({batch, 2, 1300, 40}, 2, dtype);
        const Tensor v = normal({batch, 2, 1300, 40}, 3, dtype);
        const AttentionOptions options{.mask = Mask::key_lengths(lengths)};
        set_num_threads(1);
        const AttentionResult want = attention(q, k, v, options);
        for (const int threads : {2, 3, 7}) {
            set_num_threads(threads);
            EXPECT_TRUE(same_bits(attention(q, k, v, options).output, want.output));
        }
        set_num_threads(0);
        KvCache cache({.batch = batch, .kv_heads = 2, .head_dim = 40, .capacity = 16, .dtype = dtype});
        cache.append(k, v, lengths);
        EXPECT_TRUE(same_bits(attention(q, cache).output, want.output));
        PagedKvCache paged({.kv_heads = 2, .head_dim = 40, .page_size = 48, .pages = 3, .dtype = dtype});
        std::vector<std::int64_t> sequences;
        for (std::int64_t b = 0; b < batch; ++b) {
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

// As many queries as keys in all, more of them in one sequence: none of them is padding.
TEST_P(Decode, PackedSequencesWithMoreQueriesThanKeysHaveTheirOwnBits) {
    const Tensor q = normal({1, 4, 8, 8}, 1);
    const Tensor k = normal({1, 4, 8, 8}, 2);
    const Tensor v = normal({1, 4, 8, 8}, 3);
    const std::vector<std::int64_t> queries = {0, 6, 8};
    const std::vector<std::int64_t> keys = {0, 4, 8};
    const AttentionResult found = attention(q, k, v, {.mask = Mask::packed(queries, keys)});
    for (std::size_t s = 0; s < 2; ++s) {
        const auto own = [&](const Tensor& t, const std::vector<std::int64_t>& starts) {
            return t.view().slice(2, starts[s], starts[s + 1]);
        };
        const AttentionResult alone = attention(own(q, queries), own(k, keys), own(v, keys));
        EXPECT_TRUE(same_bits(alone.output, own(found.output, queries).clone())) << s;
    }
}

TEST_P(Decode, WeightsChangeNoBit) {
    for (const DType dtype : {DType::float32, DType::bfloat16}) {
        for (const std::int64_t queries : {1, 4, 5, 40}) {
            const Tensor q = normal({2, 4, queries, 40}, 1, dtype);
            const Tensor k = normal({2, 2, 1100, 40}, 2, dtype);
            const Tensor v = normal({2, 2, 1100, 40}, 3, dtype);
            AttentionOptions options{.mask = Mask::causal_bottom_right()};
            const AttentionResult without = attention(q, k, v, options);
            for (const DType cached : {dtype, DType::int8}) {
                KvCache cache({.batch = 2, .kv_heads = 2, .head_dim = 40, .dtype = cached});
                cache.append(k, v);
                options.return_weights = false;
                const AttentionResult plain = attention(q, cache, options);
                options.return_weights = true;
                const AttentionResult found = attention(q, cache, options);
                EXPECT_TRUE(same_bits(found.output, plain.output)) << queries;
                EXPECT_TRUE(same_bits(found.log_sum_exp, plain.log_sum_exp)) << queries;
                EXPECT_EQ(found.weights.shape(), (Shape{2, 4, queries, 1100}));
            }
            const AttentionResult with = attention(q, k, v, options);
            EXPECT_TRUE(same_bits(with.output, without.output)) << queries;
            EXPECT_TRUE(same_bits(with.log_sum_exp, without.log_sum_exp)) << queries;
        }
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
    const Tensor k = normal({1, 2, 1100, 64}, 2);
    const Tensor v = normal({1, 2, 1100, 64}, 3);
    KvCache cache({.kv_heads = 2, .head_dim = 64, .dtype = DType::int8});
    cache.append(k, v);
    PagedKvCache paged({.kv_heads = 2, .head_dim = 64, .page_size = 32, .dtype = DType::int8});
    const std::vector<std::int64_t> sequences = {paged.add_sequence()};
    paged.append(sequences, k, v);
    // The numbers that the cache holds, exactly.
    Tensor k8({1, 2, 1100, 64});
    Tensor v8({1, 2, 1100, 64});
    for (std::int64_t h = 0; h < 2; ++h) {
        for (std::int64_t j = 0; j < 1100; ++j) {
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
             d % 2 == 0 ? std::vector<std::int64_t>{15, 1535} : std::vector<std::int64_t>{1023, 1024}) {
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
            for (const std::int64_t d : {24, 32, 59, 64, 128, 200}) {
                const std::int64_t keys = d == 59 || d == 64 ? 1100 : 70;  // two splits, or one
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
                // As many heads to a head of keys as there are loops for.
                for (const std::int64_t heads : {2, 4, 8}) {
                    const Tensor few = normal({2, heads, 1, d}, 4, type);
                    const Tensor few64 = few.to(DType::float64);
                    EXPECT_LE(row_error(attention(few, cache).output, attention(few64, k, v).output,
                                        attention(few64, k, absolute(v)).output),
                              bound_of(type) + (cached == DType::int8 ? int8_bound(few, k) : 0.0))
                        << heads << " heads";
                }
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

// Integers are exact, whatever multiplies them.
TEST_P(Decode, TilesHaveTheBitsOfVectorsForInt8) {
    if (GetParam() != kernels::cpu::Isa::amx) return;
    for (const std::int64_t d : {24, 64, 128, 200}) {
        for (const std::int64_t heads : {1, 2, 6, 13, 40}) {
            SCOPED_TRACE(::testing::Message() << heads << " heads of " << d);
            const Tensor q = normal({1, heads, 1, d}, 1);
            KvCache cache({.kv_heads = 1, .head_dim = d, .value_dim = d + 3, .dtype = DType::int8});
            cache.append(normal({1, 1, 700, d}, 2), normal({1, 1, 700, d + 3}, 3));
            const AttentionResult tiles = attention(q, cache);
            const kernels::cpu::IsaOverride vectors(kernels::cpu::Isa::avx512_bf16);
            EXPECT_TRUE(same_bits(attention(q, cache).output, tiles.output));
        }
    }
}

// A row's bits do not depend on the rows that share its keys: not on other heads of its group (few and many, which may
// be multiplied by different instructions), nor on other queries.
TEST_P(Decode, RowsEqualThoseOfSmallerGroups) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::int8}) {
        KvCache cache({.batch = 1, .kv_heads = 1, .head_dim = 72, .dtype = dtype});
        cache.append(normal({1, 1, 777, 72}, 2), normal({1, 1, 777, 72}, 3));
        for (const auto& [heads, few] : {std::pair(3, 1), std::pair(45, 9)}) {
            const Tensor q = normal({1, heads, 1, 72}, 1, dtype == DType::int8 ? DType::float32 : dtype);
            const AttentionResult together = attention(q, cache);
            for (std::int64_t h = 0; h < heads; h += few) {
                const AttentionResult alone = attention(q.view().slice(1, h, h + few), cache);
                EXPECT_TRUE(same_bits(alone.output, together.output.view().slice(1, h, h + few).clone()));
                EXPECT_TRUE(same_bits(alone.log_sum_exp, together.log_sum_exp.view().slice(1, h, h + few).clone()));
            }
        }
    }
}

TEST_P(Decode, QueriesEqualSingleQueries) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::int8}) {
        KvCache cache({.batch = 1, .kv_heads = 1, .head_dim = 72, .dtype = dtype});
        cache.append(normal({1, 1, 777, 72}, 2), normal({1, 1, 777, 72}, 3));
        for (const std::int64_t heads : {1, 12}) {
            const Tensor q = normal({1, heads, 4, 72}, 1, dtype == DType::int8 ? DType::float32 : dtype);
            const AttentionResult together = attention(q, cache);
            for (std::int64_t i = 0; i < 4; ++i) {
                const AttentionResult alone = attention(q.view().slice(2, i, i + 1), cache);
                EXPECT_TRUE(same_bits(alone.output, together.output.view().slice(2, i, i + 1).clone()));
            }
        }
    }
}

TEST_P(Decode, BiasOfMinusInfinityReadsTheValue) {
    const Tensor q = normal({1, 2, 1, 16}, 1);
    const Tensor k = normal({1, 1, 1600, 16}, 2);
    Tensor v = normal({1, 1, 1600, 16}, 3);
    Tensor bias = zeros({2, 1, 1600});
    bias.view().select(0, 0).slice(1, 0, 1100).fill(-std::numeric_limits<double>::infinity());
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
    for (const std::int64_t keys : {40, 64}) {  // whose scales are copied, or read where they lie
        for (const double bad : {kNaN, std::numeric_limits<double>::infinity()}) {
            for (const bool in_keys : {true, false}) {
                Tensor k = normal({1, 1, keys, 16}, 2);
                Tensor v = normal({1, 1, keys, 16}, 3);
                (in_keys ? k : v).at<float>({0, 0, keys - 1, 3}) = static_cast<float>(bad);
                KvCache cache({.kv_heads = 1, .head_dim = 16, .dtype = DType::int8});
                cache.append(k, v);
                const AttentionResult y = attention(q, cache, {.mask = Mask::causal_bottom_right()});
                EXPECT_TRUE(std::isnan(y.output.at<float>({0, 0, 1, 3})));
                // The other row is what it is without the last token.
                cache.truncate(0, keys - 1);
                const AttentionResult before = attention(q, cache);
                for (std::int64_t e = 0; e < 16; ++e) {
                    EXPECT_FLOAT_EQ(y.output.at<float>({0, 0, 0, e}), before.output.at<float>({0, 0, 0, e})) << e;
                }
            }
        }
    }
}

}  // namespace
}  // namespace attend::testing
