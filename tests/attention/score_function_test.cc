// Scores changed by a function: forward, weights, gradients, and what the function learns, against the oracle.
#include "cases.h"
#include "magnitude.h"

#include "tests/support/compare.h"

#include <attend/attention/kv_cache.h>
#include <attend/attention/score_function.h>
#include <attend/core/error.h>
#include <attend/core/threads.h>
#include <attend/kernels/cpu/isa.h>

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <utility>
#include <vector>

namespace attend::testing {
namespace {

using kernels::cpu::available_isas;
using kernels::cpu::Isa;
using kernels::cpu::IsaOverride;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr double kFloat32 = 5e-6;  // as without a function, docs/tolerances.md
// The function works on float32: a score below 8 may be rounded to either neighbour, 4.8e-7 apart, which weights feel.
constexpr double kFloat64 = 1e-6;
constexpr std::int64_t kBuckets = 8;

std::int64_t bucket_of(const ScorePlace& tile, std::int64_t i, std::int64_t j) {
    const std::int64_t distance = tile.query_begin + i + tile.query_offset - tile.key_begin - j;
    return (tile.head * 3 + (distance % kBuckets + kBuckets)) % kBuckets;
}

bool removed(const ScorePlace& tile, std::int64_t i, std::int64_t j) {
    return (tile.query_begin + i + 3 * (tile.key_begin + j) + tile.head + tile.sequence) % 11 == 0;
}

/// s -> 2 tanh(s / 2) + table[bucket], -inf for a few pairs; the table is learned.
struct Curve {
    explicit Curve(std::int64_t slots) : sums(static_cast<std::size_t>(slots * kBuckets)), absolute(sums.size()) {
        for (std::int64_t b = 0; b < kBuckets; ++b) table.push_back(0.1F * static_cast<float>(b) - 0.3F);
    }

    ScoreFunction function(bool with_gradients = true) {
        ScoreFunction result;
        result.change = [this](const ScoreTile& tile) {
            for (std::int64_t i = 0; i < tile.query_count; ++i) {
                for (std::int64_t j = 0; j < tile.key_count; ++j) {
                    float& s = tile.score(i, j);
                    s = 2.0F * std::tanh(s / 2.0F) + table[static_cast<std::size_t>(bucket_of(tile, i, j))];
                    if (removed(tile, i, j)) s = -kInf;
                }
            }
        };
        if (!with_gradients) return result;
        result.derivative = [](const ScoreGradientTile& tile) {
            for (std::int64_t i = 0; i < tile.query_count; ++i) {
                for (std::int64_t j = 0; j < tile.key_count; ++j) {
                    const float t = std::tanh(tile.score(i, j) / 2.0F);
                    tile.grad(i, j) *= 1.0F - t * t;
                }
            }
        };
        result.parameters = [this](const ScoreGradientTile& tile) {
            for (std::int64_t i = 0; i < tile.query_count; ++i) {
                for (std::int64_t j = 0; j < tile.key_count; ++j) {
                    const auto at = static_cast<std::size_t>(tile.slot * kBuckets + bucket_of(tile, i, j));
                    sums.at(at) += static_cast<double>(tile.grad(i, j));
                    absolute.at(at) += std::fabs(static_cast<double>(tile.grad(i, j)));
                }
            }
        };
        return result;
    }

    /// The slots added up in order.
    static std::vector<double> total(const std::vector<double>& slots) {
        std::vector<double> sum(kBuckets);
        for (std::size_t e = 0; e < slots.size(); ++e) sum[e % kBuckets] += slots[e];
        return sum;
    }

    std::vector<float> table;
    std::vector<double> sums;
    std::vector<double> absolute;
};

/// Everything that a problem gives under the curve.
struct Outcome {
    Outcome(const Problem& p, Algorithm algorithm, bool with_gradients = true) {
        AttentionOptions options = p.options(algorithm);
        options.score = ScoreFunction{.change = [](const ScoreTile&) {}, .parameters = [](const ScoreGradientTile&) {}};
        Curve curve(score_slots(p.query, p.key, p.value, options));
        options.score = curve.function(with_gradients);
        result = attention(p.query, p.key, p.value, options);
        gradients = attention_backward(p.grad_output, p.query, p.key, p.value, result, options);
        slots = curve.sums;
        learned = Curve::total(curve.sums);
        learned_absolute = Curve::total(curve.absolute);
    }

    AttentionResult result;
    AttentionGradients gradients;
    std::vector<double> slots;
    std::vector<double> learned;
    std::vector<double> learned_absolute;
};

Magnitudes magnitudes_of(const Problem& problem, const TensorView& weights) {
    const double scale =
        problem.description.scale.value_or(1.0 / std::sqrt(std::max(1.0, static_cast<double>(problem.description.d))));
    return magnitudes(problem.query, problem.key, problem.value, problem.grad_output, weights, scale);
}

void expect_near(const Outcome& found, const Outcome& want, const Magnitudes& magnitude, double tolerance,
                 double log_sum_exp_tolerance) {
    EXPECT_LE(row_error(found.result.output, want.result.output, magnitude.output), tolerance);
    EXPECT_LE(row_error(found.result.weights, want.result.weights), tolerance);
    EXPECT_LE(row_error(found.result.log_sum_exp, want.result.log_sum_exp), log_sum_exp_tolerance);
    EXPECT_LE(row_error(found.gradients.query, want.gradients.query, magnitude.query), tolerance);
    EXPECT_LE(row_error(found.gradients.key, want.gradients.key, magnitude.key), tolerance);
    EXPECT_LE(row_error(found.gradients.value, want.gradients.value, magnitude.value), tolerance);
    const Tensor& bias = want.gradients.bias;
    if (bias.numel() == 0) return;
    EXPECT_LE(row_error(found.gradients.bias, bias, summed_like_bias(magnitude.scores, bias.shape())), tolerance);
}

/// Relative to the summands and the gradients that cancelled in them (P dP - P delta: at most 4 times what is left).
void expect_learned(const Outcome& found, const Outcome& want, double tolerance) {
    for (std::size_t b = 0; b < static_cast<std::size_t>(kBuckets); ++b) {
        EXPECT_NEAR(found.learned[b], want.learned[b], 4 * tolerance * (want.learned_absolute[b] + 1e-3)) << b;
    }
}

std::vector<Case> score_cases() {
    std::vector<Case> cases = option_cases();
    cases.push_back({.name = "grouped", .heads = 6, .kv_heads = 2, .queries = 70, .keys = 300});
    cases.push_back({.name = "few_queries", .heads = 4, .queries = 3, .keys = 1300});
    cases.push_back({.name = "no_dimensions", .queries = 9, .keys = 40, .d = 0, .dv = 0});
    cases.push_back({.name = "empty", .queries = 0, .keys = 7});
    cases.push_back({.name = "no_keys", .queries = 7, .keys = 0});
    return cases;
}

class ScoreFunctions : public ::testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(Cases, ScoreFunctions, ::testing::ValuesIn(score_cases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(ScoreFunctions, Float64) {
    const Problem p(GetParam(), DType::float64, 41);
    const Outcome want(p, Algorithm::reference);
    const Outcome found(p, Algorithm::flash);
    expect_near(found, want, magnitudes_of(p, want.result.weights), kFloat64, kFloat64);
    expect_learned(found, want, kFloat64);
}

TEST_P(ScoreFunctions, Float32) {
    const Problem p(GetParam(), DType::float32, 42);
    const Outcome want(p, Algorithm::reference);
    const Magnitudes magnitude = magnitudes_of(p, want.result.weights);
    for (const Isa isa : available_isas()) {
        SCOPED_TRACE(name_of(isa));
        const IsaOverride forced(isa);
        const Outcome found(p, Algorithm::flash);
        expect_near(found, want, magnitude, kFloat32, kFloat32);
        expect_learned(found, want, kFloat32);
    }
}

TEST_P(ScoreFunctions, SixteenBit) {
    for (const auto& [dtype, unit] : {std::pair(DType::bfloat16, 0x1p-8), std::pair(DType::float16, 0x1p-11)}) {
        const Problem p(GetParam(), dtype, 43);
        Problem exact(GetParam(), DType::float64, 43);
        exact.query = p.query.to(DType::float64);
        exact.key = p.key.to(DType::float64);
        exact.value = p.value.to(DType::float64);
        exact.grad_output = p.grad_output.to(DType::float64);
        exact.bias = p.bias.to(DType::float64);
        const Outcome want(exact, Algorithm::reference);
        const Magnitudes magnitude = magnitudes_of(exact, want.result.weights);
        for (const Isa isa : available_isas()) {
            SCOPED_TRACE(name_of(isa));
            const IsaOverride forced(isa);
            const Outcome found(p, Algorithm::flash);
            expect_near(found, want, magnitude, 2 * unit, dtype == DType::bfloat16 ? 4e-4 : 1e-6);
            expect_learned(found, want, 2 * unit);
        }
    }
}

// Without gradients of its own a function's derivative is 1: what is added, and -inf.
TEST_P(ScoreFunctions, AddedScoresNeedNoDerivative) {
    const ScoreFunction function{.change = [](const ScoreTile& tile) {
        for (std::int64_t i = 0; i < tile.query_count; ++i) {
            for (std::int64_t j = 0; j < tile.key_count; ++j) {
                tile.score(i, j) += removed(tile, i, j) ? -kInf : 0.25F * static_cast<float>(bucket_of(tile, i, j));
            }
        }
    }};
    for (const auto& [dtype, tolerance] :
         {std::pair(DType::float32, kFloat32), std::pair(DType::bfloat16, 0x1p-7), std::pair(DType::float64, 1e-6)}) {
        const Problem p(GetParam(), dtype, 44);
        AttentionOptions options = p.options(Algorithm::reference);
        options.score = function;
        const AttentionResult want = attention(p.query, p.key, p.value, options);
        const AttentionGradients grad_want = attention_backward(p.grad_output, p.query, p.key, p.value, want, options);
        const Magnitudes magnitude = magnitudes_of(p, want.weights);
        options.algorithm = Algorithm::flash;
        const AttentionResult found = attention(p.query, p.key, p.value, options);
        const AttentionGradients grad = attention_backward(p.grad_output, p.query, p.key, p.value, found, options);
        EXPECT_LE(row_error(found.output, want.output, magnitude.output), tolerance);
        EXPECT_LE(row_error(grad.query, grad_want.query, magnitude.query), tolerance);
        EXPECT_LE(row_error(grad.key, grad_want.key, magnitude.key), tolerance);
        EXPECT_LE(row_error(grad.value, grad_want.value, magnitude.value), tolerance);
    }
}

TEST_P(ScoreFunctions, BitsDoNotDependOnThreads) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::float64}) {
        const Problem p(GetParam(), dtype, 45);
        std::optional<Outcome> first;
        for (const int threads : {1, 2, 3, 7}) {
            set_num_threads(threads);
            const Outcome found(p, Algorithm::automatic);
            if (first) {
                EXPECT_TRUE(same_bits(found.result.output, first->result.output)) << threads;
                EXPECT_TRUE(same_bits(found.result.weights, first->result.weights)) << threads;
                EXPECT_TRUE(same_bits(found.gradients.query, first->gradients.query)) << threads;
                EXPECT_TRUE(same_bits(found.gradients.key, first->gradients.key)) << threads;
                EXPECT_TRUE(same_bits(found.gradients.value, first->gradients.value)) << threads;
                EXPECT_EQ(found.slots, first->slots) << threads;
            } else {
                first.emplace(p, Algorithm::automatic);
            }
        }
        set_num_threads(0);
    }
}

// A function is told places within the sequence, and where the sequence begins.
TEST(ScoreFunction, PackedSequencesCountFromTheirOwnStart) {
    const Case padded{.name = "padded", .batch = 2, .queries = 40, .keys = 40, .mask = Mask::causal()};
    const Problem p(padded, DType::float32, 46);
    const ScoreFunction function{.change = [](const ScoreTile& tile) {
        EXPECT_EQ(tile.batch + tile.query_start / 40, tile.sequence);
        EXPECT_EQ(tile.key_start, tile.query_start);
        for (std::int64_t i = 0; i < tile.query_count; ++i) {
            for (std::int64_t j = 0; j < tile.key_count; ++j) {
                tile.score(i, j) += 0.1F * static_cast<float>((tile.sequence + 1) * (tile.query_begin + i)) -
                                    0.2F * static_cast<float>(tile.key_begin + j);
            }
        }
    }};
    AttentionOptions options = p.options();
    options.score = function;
    const AttentionResult want = attention(p.query, p.key, p.value, options);
    const auto packed = [](const Tensor& tensor) {
        Tensor result({1, tensor.size(1), 2 * tensor.size(2), tensor.size(3)}, tensor.dtype());
        for (std::int64_t b = 0; b < 2; ++b) {
            result.view().select(0, 0).slice(1, b * 40, b * 40 + 40).copy_from(tensor.view().select(0, b));
        }
        return result;
    };
    options.mask = Mask::packed({0, 40, 80}) & Mask::causal();
    const AttentionResult found = attention(packed(p.query), packed(p.key), packed(p.value), options);
    EXPECT_TRUE(same_bits(found.output, packed(want.output)));
}

// A cache is attended to as its tensors would be.
TEST(ScoreFunction, WorksOverACache) {
    const Tensor key = normal({1, 2, 90, 32}, 1);
    const Tensor value = normal({1, 2, 90, 32}, 2);
    Curve curve(1);
    for (const std::int64_t queries : {1, 6}) {
        const Tensor query = normal({1, 4, queries, 32}, 3);
        PagedKvCache cache({.kv_heads = 2, .head_dim = 32, .page_size = 16, .dtype = DType::float32});
        const std::int64_t sequence = cache.add_sequence();
        cache.append(std::vector{sequence}, key, value);
        AttentionOptions options{.mask = Mask::causal_bottom_right(), .score = curve.function()};
        const AttentionResult want = attention(query, key, value, options);
        EXPECT_TRUE(same_bits(attention(query, cache, std::vector{sequence}, options).output, want.output));
    }
}

// Six values of f around 0 leave an error of h^6 f''''''' / 140; with h = 2^-5 and scores that floats hold exactly, as
// here, that is below 1e-9, and rounding 1e-14 / h.
TEST(ScoreFunction, LearnedBiasEqualsCentralDifferences) {
    const auto eighths = [](const Shape& shape, std::uint64_t seed) {
        Tensor tensor = normal(shape, seed, DType::float64);
        for (std::int64_t e = 0; e < tensor.numel(); ++e) {
            tensor.data<double>()[e] = std::round(8.0 * tensor.data<double>()[e]) / 8.0;
        }
        return tensor;
    };
    const Tensor query = eighths({2, 2, 9, 4}, 1);
    const Tensor key = eighths({2, 2, 9, 4}, 2);
    const Tensor value = normal({2, 2, 9, 3}, 3, DType::float64);
    const Tensor grad_output = normal({2, 2, 9, 3}, 4, DType::float64);
    for (const Algorithm algorithm : {Algorithm::reference, Algorithm::flash}) {
        std::vector<float> table(kBuckets, 0.125F);
        AttentionOptions options{.mask = Mask::causal(), .scale = 0.5, .algorithm = algorithm};
        const std::int64_t slots = score_slots(query, key, value, options);
        std::vector<double> sums(static_cast<std::size_t>(slots * kBuckets));
        options.score = ScoreFunction{
            .change =
                [&](const ScoreTile& tile) {
                    for (std::int64_t i = 0; i < tile.query_count; ++i) {
                        for (std::int64_t j = 0; j < tile.key_count; ++j) {
                            tile.score(i, j) += table[static_cast<std::size_t>(bucket_of(tile, i, j))];
                        }
                    }
                },
            .parameters =
                [&](const ScoreGradientTile& tile) {
                    for (std::int64_t i = 0; i < tile.query_count; ++i) {
                        for (std::int64_t j = 0; j < tile.key_count; ++j) {
                            sums.at(static_cast<std::size_t>(tile.slot * kBuckets + bucket_of(tile, i, j))) +=
                                static_cast<double>(tile.grad(i, j));
                        }
                    }
                }};
        const auto loss = [&] {
            const std::vector<double> output = values(attention(query, key, value, options).output);
            const std::vector<double> grad = values(grad_output);
            return std::inner_product(output.begin(), output.end(), grad.begin(), 0.0);
        };
        const AttentionResult y = attention(query, key, value, options);
        attention_backward(grad_output, query, key, value, y, options);
        const std::vector<double> learned = Curve::total(sums);
        constexpr float kStep = 0x1p-5F;
        for (std::size_t b = 0; b < table.size(); ++b) {
            const auto difference = [&](float h) {
                table[b] = 0.125F + h;
                const double above = loss();
                table[b] = 0.125F - h;
                const double below = loss();
                table[b] = 0.125F;
                return above - below;
            };
            const double want = (45 * difference(kStep) - 9 * difference(2 * kStep) + difference(3 * kStep)) /
                                (60 * static_cast<double>(kStep));
            // The gradients that the function is given are rounded to floats.
            EXPECT_NEAR(learned[b], want, 1e-6) << b;
        }
    }
}

// Each visible pair is given to `parameters` once, in a slot below score_slots.
TEST(ScoreFunction, ParametersSeeEachVisiblePairOnce) {
    for (const DType dtype : {DType::float32, DType::float64}) {
        for (const Algorithm algorithm : {Algorithm::reference, Algorithm::flash}) {
            const Tensor q = normal({1, 2, 50, 8}, 1, dtype);
            const Tensor k = normal({1, 1, 210, 8}, 2, dtype);
            AttentionOptions options{.mask = Mask::causal_bottom_right(), .algorithm = algorithm};
            const std::int64_t slots = score_slots(q, k, k, options);
            std::vector<std::atomic<int>> seen(2 * 50 * 210);
            std::vector<std::atomic<int>> busy(static_cast<std::size_t>(slots));
            options.score =
                ScoreFunction{.change = [](const ScoreTile&) {},
                              .parameters =
                                  [&](const ScoreGradientTile& tile) {
                                      ASSERT_LT(tile.slot, slots);
                                      EXPECT_EQ(busy[static_cast<std::size_t>(tile.slot)]++, 0);
                                      for (std::int64_t i = 0; i < tile.query_count; ++i) {
                                          for (std::int64_t j = 0; j < tile.key_count; ++j) {
                                              const std::int64_t row = tile.head * 50 + tile.query_begin + i;
                                              ++seen[static_cast<std::size_t>(row * 210 + tile.key_begin + j)];
                                          }
                                      }
                                      --busy[static_cast<std::size_t>(tile.slot)];
                                  }};
            const AttentionResult y = attention(q, k, k, options);
            attention_backward(ones_like(y.output), q, k, k, y, options);
            for (std::int64_t e = 0; e < 2 * 50 * 210; ++e) {
                const std::int64_t i = e / 210 % 50;
                if (e % 210 <= i + 160) {
                    ASSERT_EQ(seen[static_cast<std::size_t>(e)], 1) << e;
                } else {
                    ASSERT_LE(seen[static_cast<std::size_t>(e)], 1) << e;
                }
            }
        }
    }
}

TEST(ScoreFunction, RowWithoutWeightIsDead) {
    const ScoreFunction nothing{.change = [](const ScoreTile& tile) {
        for (std::int64_t i = 0; i < tile.query_count; ++i) {
            for (std::int64_t j = 0; j < tile.key_count && tile.query_begin + i == 3; ++j) tile.score(i, j) = -kInf;
        }
    }};
    for (const Algorithm algorithm : {Algorithm::reference, Algorithm::flash}) {
        for (const DType dtype : {DType::float32, DType::float64}) {
            const Tensor q = normal({1, 1, 6, 8}, 1, dtype);
            const AttentionOptions options{.score = nothing, .return_weights = true, .algorithm = algorithm};
            const AttentionResult y = attention(q, q, q, options);
            const AttentionGradients g = attention_backward(ones_like(y.output), q, q, q, y, options);
            for (std::int64_t c = 0; c < 8; ++c) {
                EXPECT_EQ(y.output.item({0, 0, 3, c}), 0.0);
                EXPECT_EQ(g.query.item({0, 0, 3, c}), 0.0);
                EXPECT_NE(y.output.item({0, 0, 2, c}), 0.0);
            }
            EXPECT_EQ(y.log_sum_exp.item({0, 0, 3}), -std::numeric_limits<double>::infinity());
        }
    }
}

// Functions may compute attention themselves: what a thread had set up for its own products is there again afterwards.
TEST(ScoreFunction, MayCallAttention) {
    for (const Isa isa : available_isas()) {
        const IsaOverride used(isa);
        const Tensor q = normal({1, 2, 70, 40}, 1, DType::bfloat16);
        const Tensor small = normal({1, 1, 5, 8}, 2, DType::bfloat16);
        const auto run = [&](bool nested) {
            const ScoreFunction function{.change = [&small, nested](const ScoreTile& tile) {
                if (nested) static_cast<void>(attention(small, small, small));
                tile.score(0, 0) += 0.5F;
            }};
            const AttentionOptions options{.score = function};
            const AttentionResult y = attention(q, q, q, options);
            return std::pair(y.output, attention_backward(q, q, q, q, y, options).query);
        };
        const auto [output, gradient] = run(false);
        const auto [nested_output, nested_gradient] = run(true);
        EXPECT_TRUE(same_bits(nested_output, output));
        EXPECT_TRUE(same_bits(nested_gradient, gradient));
    }
}

TEST(ScoreFunction, Errors) {
    const Tensor q = normal({1, 1, 6, 8}, 1);
    EXPECT_EQ(message_of<ValueError>([&] { attention(q, q, q, {.score = ScoreFunction{}}); }),
              "[attention] expected a function `change` in options.score, found none");
    // What a function throws leaves attention, from whichever thread.
    const ScoreFunction throws{.change = [](const ScoreTile&) { throw std::out_of_range("mine"); }};
    EXPECT_EQ(message_of<std::out_of_range>([&] { attention(q, q, q, {.score = throws}); }), "mine");
    const AttentionResult y = attention(q, q, q);
    EXPECT_EQ(
        message_of<std::out_of_range>([&] { attention_backward(ones_like(y.output), q, q, q, y, {.score = throws}); }),
        "mine");
}

}  // namespace
}  // namespace attend::testing
