// The gradient of the bias where it is summed over several key blocks, query blocks, heads and sequences.
#include "cases.h"
#include "magnitude.h"

#include "tests/support/compare.h"

#include <attend/attention/problem.h>
#include <attend/core/threads.h>
#include <attend/kernels/cpu/flash/backward_plan.h>
#include <attend/kernels/cpu/isa.h>

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <sstream>
#include <utility>
#include <vector>

namespace attend::testing {
namespace {

using kernels::cpu::available_isas;
using kernels::cpu::Isa;
using kernels::cpu::IsaOverride;

constexpr std::int64_t kQueries = 270;  // more than a block of queries
constexpr std::int64_t kKeys = 215;     // more than two blocks of keys, the last tile partial

/// Options on a grouped problem of two sequences, or of three packed ones, without a bias.
std::vector<Case> options_without_bias() {
    const Case base{.name = "plain", .heads = 4, .kv_heads = 2, .queries = kQueries, .keys = kKeys, .d = 16, .dv = 8};
    const auto with = [&](const std::string& name, const auto& change) {
        Case c = base;
        c.name = name;
        change(c);
        return c;
    };
    return {
        base,
        with("causal_lengths",
             [](Case& c) {
                 c.mask = Mask::causal_bottom_right() & Mask::key_lengths({kKeys, 101});
             }),
        with("lengths_rise",
             [](Case& c) {
                 c.mask = Mask::key_lengths({60, kKeys});
             }),
        with("window", [](Case& c) { c.mask = Mask::window(40, 30); }),
        with("packed",
             [](Case& c) {
                 c.batch = 1;
                 c.mask = Mask::packed({0, 100, 100, 261}, {0, 97, 111, 209}) & Mask::causal_bottom_right();
             }),
        with("boolean", [](Case& c) { c.boolean_mask = true; }),
        with("dropout", [](Case& c) { c.dropout = 0.3; }),
        with("softcap_alibi",
             [](Case& c) {
                 c.scale = 0.9;
                 c.softcap = 2.0;
                 c.alibi = true;
             }),
        with("scale_zero", [](Case& c) { c.scale = 0.0; }),
        with("ungrouped", [](Case& c) { c.kv_heads = 4; }),
        with("everything",
             [](Case& c) {
                 c.mask = Mask::causal_bottom_right() & Mask::window(150, {}) & Mask::key_lengths({190, 207});
                 c.boolean_mask = true;
                 c.alibi = true;
                 c.scale = -0.4;
                 c.softcap = 3.0;
                 c.dropout = 0.2;
             }),
    };
}

/// The same with every way of broadcasting a bias: each dimension is its own or shared.
std::vector<Case> broadcast_cases() {
    std::vector<Case> cases;
    int index = 0;
    for (const Case& options : options_without_bias()) {
        ++index;
        for (int shared = 0; shared < 16; ++shared) {
            // Without options every way, with them every fifth.
            if (options.name != "plain" && (shared + index) % 5 != 0) continue;
            if (options.batch == 1 && shared % 2 == 1) continue;
            Case c = options;
            c.bias = {c.batch, c.heads, c.queries, c.keys};
            std::ostringstream name;
            name << c.name << "_bias";
            for (int dim = 0; dim < 4; ++dim) {
                if ((shared >> dim & 1) != 0) c.bias[dim] = 1;
                name << '_' << c.bias[dim];
            }
            c.name = name.str();
            cases.push_back(c);
        }
    }
    return cases;
}

class BiasGradients : public ::testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(Cases, BiasGradients, ::testing::ValuesIn(broadcast_cases()),
                         [](const auto& info) { return info.param.name; });

/// A problem whose inputs are those of another.
Problem converted(const Problem& from, DType dtype) {
    Problem to(from.description, dtype, 61);
    to.query = from.query.to(dtype);
    to.key = from.key.to(dtype);
    to.value = from.value.to(dtype);
    to.grad_output = from.grad_output.to(dtype);
    to.bias = from.bias.to(dtype);
    return to;
}

// The plain path in float64 stands for the oracle, which it is compared with in oracle_test.cc.
TEST_P(BiasGradients, EqualThePlainPathInFloat64) {
    const Case& c = GetParam();
    const Problem rounded(c, DType::bfloat16, 61);
    const Problem exact = converted(rounded, DType::float64);
    const AttentionResult want = exact.forward(Algorithm::flash);
    const AttentionGradients grad_want = exact.backward(want, Algorithm::flash);
    const Magnitudes magnitude = magnitudes(exact.query, exact.key, exact.value, exact.grad_output, want.weights, 1.0);
    const Tensor scale = summed_like_bias(magnitude.scores, c.bias);
    for (const auto& [dtype, bound] : {std::pair(DType::float32, 5e-6), std::pair(DType::bfloat16, 0x1p-7)}) {
        SCOPED_TRACE(name_of(dtype));
        const Problem p = converted(rounded, dtype);
        for (const Isa isa : available_isas()) {
            SCOPED_TRACE(name_of(isa));
            const IsaOverride forced(isa);
            const AttentionGradients grad = p.backward(p.forward(Algorithm::flash), Algorithm::flash);
            EXPECT_EQ(grad.bias.dtype(), dtype);
            EXPECT_LE(row_error(grad.bias, grad_want.bias, scale), bound);
        }
    }
}

TEST_P(BiasGradients, BitsDoNotDependOnThreads) {
    for (const DType dtype : {DType::float32, DType::bfloat16}) {
        const Problem p(GetParam(), dtype, 62);
        const AttentionResult result = p.forward(Algorithm::flash);
        set_num_threads(1);
        const AttentionGradients one = p.backward(result, Algorithm::flash);
        for (const int threads : {2, 3, 7}) {
            set_num_threads(threads);
            const AttentionGradients many = p.backward(result, Algorithm::flash);
            EXPECT_TRUE(same_bits(many.bias, one.bias)) << threads;
            EXPECT_TRUE(same_bits(many.query, one.query)) << threads;
        }
        set_num_threads(0);
    }
}

// What is asked for besides changes nothing.
TEST_P(BiasGradients, OtherGradientsHaveTheSameBitsWithoutIt) {
    for (const DType dtype : {DType::float32, DType::bfloat16}) {
        const Problem p(GetParam(), dtype, 63);
        const AttentionResult result = p.forward(Algorithm::flash);
        const AttentionGradients with = p.backward(result, Algorithm::flash);
        Tensor query = Tensor::empty(p.query.shape(), dtype);
        Tensor key = Tensor::empty(p.key.shape(), dtype);
        Tensor value = Tensor::empty(p.value.shape(), dtype);
        attention_backward_into({query.view(), key.view(), value.view(), {}}, p.grad_output, p.query, p.key, p.value,
                                result.output, result.log_sum_exp, p.options(Algorithm::flash));
        EXPECT_TRUE(same_bits(query, with.query));
        EXPECT_TRUE(same_bits(key, with.key));
        EXPECT_TRUE(same_bits(value, with.value));
    }
}

// A batch's own bias has the gradient that it has alone.
TEST(BiasGradient, SameBitsAloneAndInABatch) {
    for (const DType dtype : {DType::float32, DType::bfloat16}) {
        const std::int64_t length = 200;
        const Tensor q = normal({3, 2, length, 32}, 1, dtype);
        const Tensor g = normal({3, 2, length, 32}, 2, dtype);
        const Tensor bias = normal({3, 1, length, length}, 3, dtype);
        const AttentionOptions options{.mask = Mask::causal(), .bias = bias.view()};
        const AttentionGradients batch = attention_backward(g, q, q, q, attention(q, q, q, options), options);
        for (std::int64_t b = 0; b < 3; ++b) {
            const TensorView own = q.view().slice(0, b, b + 1);
            const AttentionOptions alone{.mask = Mask::causal(), .bias = bias.view().slice(0, b, b + 1)};
            const AttentionGradients grad =
                attention_backward(g.view().slice(0, b, b + 1), own, own, own, attention(own, own, own, alone), alone);
            EXPECT_TRUE(same_bits(grad.bias, batch.bias.view().slice(0, b, b + 1).clone()));
        }
    }
}

// A block waits for every block before it that adds to one of its elements and that no block in between has waited for.
TEST(BiasGradient, BlocksWaitForThoseThatTheyShareElementsWith) {
    namespace flash = kernels::cpu::flash;
    std::vector<std::int64_t> starts;
    for (std::int64_t s = 0; s <= 60; ++s) starts.push_back(s * s / 4);
    const Tensor batched = normal({5, 2, 300, 8}, 1);
    const Tensor packed = normal({1, 2, 900, 8}, 1);
    for (const bool by_batch : {true, false}) {
        const Tensor& x = by_batch ? batched : packed;
        const Mask mask = by_batch ? Mask::key_lengths({300, 97, 0, 211, 110}) : Mask::packed(starts);
        const detail::CheckedProblem checked("test", x, x, x, {.mask = mask});
        const kernels::AttentionProblem& problem = checked.problem();
        float sums = 0.0F;  // strides alone are looked at
        for (const std::array<std::int64_t, 4>& strides :
             {std::array<std::int64_t, 4>{0, 0, 0, 1}, std::array<std::int64_t, 4>{0, 0, 900, 1},
              std::array<std::int64_t, 4>{0, 900, 1, 0}, std::array<std::int64_t, 4>{0, 0, 0, 0}}) {
            const flash::BackwardPlan plan(problem, flash::backward_kernels(problem), {&sums, DType::float32, strides});
            std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> owners;  // of (head, key)
            for (const flash::KeyBlock& block : flash::key_blocks(problem, plan, 3)) {
                const kernels::Sequence& sequence = problem.sequences[static_cast<std::size_t>(block.sequence)];
                std::set<std::int64_t> found;
                for (const flash::BiasTurn& turn : block.bias_before) found.insert(turn.block);
                std::set<std::int64_t> want;
                for (std::int64_t key = block.begin; key < block.end && sequence.query_count > 0; ++key) {
                    const std::pair element{strides[1] == 0 ? 0 : block.kv_head,
                                            strides[3] == 0 ? 0 : sequence.key_begin + key};
                    const auto owner = owners.find(element);
                    if (owner != owners.end() && owner->second != block.index) want.insert(owner->second);
                    owners[element] = block.index;
                }
                EXPECT_EQ(found, want);
            }
        }
    }
}

// Hidden pairs and rows that see nothing have gradients of exactly 0, whatever is stored there.
TEST(BiasGradient, HiddenPairsHaveNone) {
    for (const Isa isa : available_isas()) {
        SCOPED_TRACE(name_of(isa));
        const IsaOverride forced(isa);
        for (const DType dtype : {DType::float32, DType::bfloat16, DType::float16}) {
            const std::int64_t length = 140;
            const Tensor q = normal({2, 2, length, 32}, 4, dtype);
            Tensor k = normal({2, 2, length, 32}, 5, dtype);
            Tensor v = normal({2, 2, length, 32}, 6, dtype);
            Tensor g = normal({2, 2, length, 32}, 7, dtype);
            Tensor bias = normal({2, 2, length, length}, 8, dtype);
            const double nan = std::numeric_limits<double>::quiet_NaN();
            const auto hidden = [&](std::int64_t b, std::int64_t i, std::int64_t j) {
                return j > i - 10 || j >= (b == 0 ? 140 : 77);  // the first ten queries see nothing
            };
            for (std::int64_t i = 0; i < length; ++i) {
                for (std::int64_t j = 0; j < length; ++j) {
                    for (std::int64_t b = 0; b < 2; ++b) {
                        if (!hidden(b, i, j)) continue;
                        for (std::int64_t h = 0; h < 2; ++h) {
                            bias.view().select(0, b).select(0, h).select(0, i).select(0, j).fill(nan);
                        }
                    }
                }
            }
            k.view().select(0, 1).slice(1, 77, 140).fill(nan);
            v.view().select(0, 1).slice(1, 77, 140).fill(std::numeric_limits<double>::infinity());
            g.view().slice(2, 0, 10).fill(nan);
            const AttentionOptions options{.mask = Mask::causal(-10) & Mask::key_lengths({140, 77}),
                                           .bias = bias.view()};
            const AttentionGradients grad = attention_backward(g, q, k, v, attention(q, k, v, options), options);
            const std::vector<double> found = values(grad.bias);
            std::size_t wrong = 0;
            std::size_t nonzero = 0;
            for (std::size_t e = 0; e < found.size(); ++e) {
                const auto at = static_cast<std::int64_t>(e);
                const bool is_hidden = hidden(at / (2 * length * length), at / length % length, at % length);
                if (is_hidden ? found[e] != 0.0 : !std::isfinite(found[e])) ++wrong;
                if (found[e] != 0.0) ++nonzero;
            }
            EXPECT_GT(nonzero, found.size() / 4);
            EXPECT_EQ(wrong, 0U) << name_of(dtype);
        }
    }
}

// A NaN that a query sees reaches its own row, and what was hidden from it stays 0.
TEST(BiasGradient, VisibleNaNStaysInItsRow) {
    for (const DType dtype : {DType::float32, DType::bfloat16}) {
        const std::int64_t length = 100;
        const Tensor q = normal({1, 1, length, 16}, 12, dtype);
        Tensor bias = normal({length, length}, 13, dtype);
        bias.view().select(0, 50).select(0, 20).fill(std::numeric_limits<double>::quiet_NaN());
        const AttentionOptions options{.mask = Mask::causal(), .bias = bias.view()};
        const AttentionGradients grad = attention_backward(q, q, q, q, attention(q, q, q, options), options);
        const std::vector<double> found = values(grad.bias);
        const std::vector<double> grad_key = values(grad.key);
        for (std::int64_t i = 0; i < length; ++i) {
            for (std::int64_t j = 0; j < length; ++j) {
                const double x = found[static_cast<std::size_t>(i * length + j)];
                EXPECT_EQ(std::isnan(x), i == 50 && j <= 50) << i << ' ' << j;
                EXPECT_TRUE(j <= i || x == 0.0);
            }
            EXPECT_EQ(std::isnan(grad_key[static_cast<std::size_t>(i * 16)]), i <= 50) << i;
        }
    }
}

// Where nothing is attended to, or nobody attends, the gradient is 0 and written.
TEST(BiasGradient, EmptyProblems) {
    for (const Shape& sizes : {Shape{0, 2, 5, 7}, Shape{2, 0, 5, 7}, Shape{2, 2, 0, 7}, Shape{2, 2, 5, 0}}) {
        const Tensor q = normal({sizes[0], sizes[1], sizes[2], 8}, 14);
        const Tensor k = normal({sizes[0], sizes[1], sizes[3], 8}, 15);
        for (const Shape& shape : {sizes, Shape{1}, Shape{1, sizes[2], 1}, Shape{1, sizes[3]}}) {
            const Tensor bias = normal(shape, 16);
            Tensor target = Tensor::empty(shape);
            poison(target);
            const AttentionOptions options{.bias = bias.view()};
            const AttentionResult result = attention(q, k, k, options);
            Tensor dq = Tensor::empty(q.shape());
            Tensor dk = Tensor::empty(k.shape());
            Tensor dv = Tensor::empty(k.shape());
            attention_backward_into({dq.view(), dk.view(), dv.view(), target.view()}, q, q, k, k, result.output,
                                    result.log_sum_exp, options);
            EXPECT_TRUE(same_bits(target, zeros(shape))) << ::testing::PrintToString(shape[0]);
        }
    }
}

// Targets may be of another type than the bias, and lie apart; a bias that was expanded has all of its elements.
TEST(BiasGradient, TargetsOfOtherTypesAndStrides) {
    const Tensor q = normal({1, 2, 130, 16}, 9);
    const Tensor g = normal({1, 2, 130, 16}, 10);
    const Tensor row = normal({1, 1, 1, 130}, 11);
    const AttentionOptions options{.bias = row.view().broadcast_to({1, 2, 130, 130})};
    const AttentionResult result = attention(q, q, q, options);
    const AttentionGradients want = attention_backward(g, q, q, q, result, options);
    EXPECT_EQ(want.bias.shape(), Shape({1, 2, 130, 130}));
    Tensor dq = Tensor::empty(q.shape());
    Tensor dk = Tensor::empty(q.shape());
    Tensor dv = Tensor::empty(q.shape());
    for (const DType dtype : {DType::float64, DType::float32, DType::bfloat16, DType::float16}) {
        Tensor apart = Tensor::empty({1, 2, 130, 2, 130}, dtype);
        Tensor together = Tensor::empty({1, 2, 130, 130}, dtype);
        poison(apart);
        poison(together);
        for (const MutableTensorView& target : {apart.view().select(3, 1), together.view()}) {
            attention_backward_into({dq.view(), dk.view(), dv.view(), target}, g, q, q, q, result.output,
                                    result.log_sum_exp, options);
            EXPECT_TRUE(same_bits(TensorView(target).clone(), want.bias.view().to(dtype)));
        }
    }
    // All queries and both heads of what was expanded.
    const AttentionOptions shared{.bias = row.view()};
    const AttentionGradients sums = attention_backward(g, q, q, q, attention(q, q, q, shared), shared);
    const Tensor all = summed_like_bias(want.bias.view().to(DType::float64), row.shape());
    EXPECT_LE(row_error(sums.bias, all), 1e-5);
}

}  // namespace
}  // namespace attend::testing
