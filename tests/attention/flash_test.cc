// The fast path where it is cut into strips, units and key blocks, on every instruction set.
#include "cases.h"
#include "magnitude.h"

#include "tests/support/compare.h"
#include "tests/support/each_isa.h"

#include <attend/core/philox.h>
#include <attend/core/threads.h>
#include <attend/kernels/cpu/flash/tile_choice.h>
#include <attend/kernels/cpu/isa.h>

#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

namespace attend::testing {
namespace {

using kernels::cpu::available_isas;
using kernels::cpu::Isa;
using kernels::cpu::IsaOverride;

class Flash : public EachIsa {};
INSTANTIATE_TEST_SUITE_P(Isas, Flash, each_isa(), isa_of_test);

/// Problems of several strips of keys (head sizes of 250 make them short) and several blocks of queries, none of which
/// tiles divide.
std::vector<Case> long_cases() {
    const Case base{.batch = 1, .heads = 1, .kv_heads = 1, .queries = 60, .keys = 700, .d = 250, .dv = 36};
    const auto with = [&](const std::string& name, const auto& change) {
        Case c = base;
        c.name = name;
        change(c);
        return c;
    };
    return {
        with("plain", [](Case& c) { c.keys = 1161; }),
        with("no_head_size", [](Case& c) { c.d = 0; }),
        with("causal",
             [](Case& c) {
                 c.heads = 2;
                 c.queries = c.keys = 570;
                 c.mask = Mask::causal();
             }),
        with("window",
             [](Case& c) {
                 c.queries = 150;
                 c.mask = Mask::causal_bottom_right() & Mask::window(300, {});
             }),
        with("window_both_sides",
             [](Case& c) {
                 c.queries = c.keys = 400;
                 c.mask = Mask::window(40, 55);
             }),
        with("lengths",
             [](Case& c) {
                 c.batch = 3;
                 c.queries = 20;
                 c.mask = Mask::key_lengths({700, 513, 0});
             }),
        with("boolean_bias",
             [](Case& c) {
                 c.heads = c.kv_heads = 2;
                 c.boolean_mask = true;
                 c.bias = {1, 2, 1, 700};
                 c.alibi = true;
             }),
        with("dropout", [](Case& c) { c.dropout = 0.25; }),
        with("softcap",
             [](Case& c) {
                 c.queries = 290;
                 c.keys = 560;
                 c.mask = Mask::causal_bottom_right();
                 c.softcap = 2.0;
             }),
    };
}

class LongCases : public ::testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(Cases, LongCases, ::testing::ValuesIn(long_cases()),
                         [](const auto& info) { return info.param.name; });

// The plain path in float64, which is within 1e-12 of the oracle (Oracle.ForwardAndBackwardFloat64), stands for it
// here.
TEST_P(LongCases, EqualsThePlainPathInFloat64) {
    const Case& c = GetParam();
    for (const auto& [dtype, bound] :
         {std::pair(DType::float32, 1e-5), std::pair(DType::bfloat16, 0x1p-7), std::pair(DType::float16, 0x1p-10)}) {
        SCOPED_TRACE(name_of(dtype));
        const Problem p(c, dtype, 31);
        Problem exact(c, DType::float64, 31);
        exact.query = p.query.to(DType::float64);
        exact.key = p.key.to(DType::float64);
        exact.value = p.value.to(DType::float64);
        exact.grad_output = p.grad_output.to(DType::float64);
        exact.bias = p.bias.to(DType::float64);
        const AttentionResult want = exact.forward(Algorithm::flash);
        const Magnitudes magnitude = magnitudes(exact.query, exact.key, exact.value, exact.grad_output, want.weights,
                                                1.0 / std::sqrt(static_cast<double>(c.d)));
        const AttentionGradients grad_want = exact.backward(want, Algorithm::flash);
        for (const Isa isa : available_isas()) {
            SCOPED_TRACE(name_of(isa));
            const IsaOverride forced(isa);
            const AttentionResult found = p.forward(Algorithm::flash);
            EXPECT_LE(row_error(found.output, want.output, magnitude.output), bound);
            EXPECT_LE(row_error(found.weights, want.weights), bound);
            const AttentionGradients grad = p.backward(found, Algorithm::flash);
            EXPECT_LE(row_error(grad.query, grad_want.query, magnitude.query), bound);
            EXPECT_LE(row_error(grad.key, grad_want.key, magnitude.key), bound);
            EXPECT_LE(row_error(grad.value, grad_want.value, magnitude.value), bound);
            if (c.bias.rank() == 0) continue;
            EXPECT_LE(row_error(grad.bias, grad_want.bias, summed_like_bias(magnitude.scores, c.bias)), bound);
        }
    }
}

void expect_same(const AttentionResult& a, const AttentionResult& b) {
    EXPECT_TRUE(same_bits(a.output, b.output));
    EXPECT_TRUE(same_bits(a.weights, b.weights));
    EXPECT_TRUE(same_bits(a.log_sum_exp, b.log_sum_exp));
}

TEST_P(Flash, BitsDoNotDependOnThreads) {
    for (const Case& c : long_cases()) {
        SCOPED_TRACE(c.name);
        for (const DType dtype : {DType::float32, DType::bfloat16}) {
            const Problem p(c, dtype, 32);
            set_num_threads(1);
            const AttentionResult one = p.forward(Algorithm::flash);
            const AttentionGradients grad_one = p.backward(one, Algorithm::flash);
            for (const int threads : {2, 3, 7}) {
                set_num_threads(threads);
                expect_same(p.forward(Algorithm::flash), one);
                const AttentionGradients grad = p.backward(one, Algorithm::flash);
                EXPECT_TRUE(same_bits(grad.query, grad_one.query));
                EXPECT_TRUE(same_bits(grad.key, grad_one.key));
                EXPECT_TRUE(same_bits(grad.value, grad_one.value));
                EXPECT_TRUE(same_bits(grad.bias, grad_one.bias));
            }
        }
        set_num_threads(0);
    }
}

// Sequences of other lengths beside it, padding behind it, other rows before it: nothing of that shows.
TEST_P(Flash, BitsDoNotDependOnBatchOrPacking) {
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::float16}) {
        const std::vector<std::int64_t> lengths = {430, 1, 790, 63};
        const std::int64_t longest = 790;
        const Tensor q = normal({4, 2, longest, 200}, 1, dtype);
        const Tensor k = normal({4, 1, longest, 200}, 2, dtype);
        const Tensor v = normal({4, 1, longest, 200}, 3, dtype);
        Tensor g = normal({4, 2, longest, 200}, 4, dtype);
        std::vector<std::int64_t> starts = {0};
        for (const std::int64_t length : lengths) starts.push_back(starts.back() + length);
        for (std::size_t s = 0; s < lengths.size(); ++s) {
            const auto b = static_cast<std::int64_t>(s);
            const MutableTensorView padding = g.view().slice(0, b, b + 1).slice(2, lengths[s], longest);
            padding.copy_from(Tensor(padding.shape(), dtype));
        }
        const auto pack = [&](const Tensor& padded) {
            Tensor packed = Tensor::empty({1, padded.size(1), starts.back(), padded.size(3)}, dtype);
            for (std::size_t s = 0; s < lengths.size(); ++s) {
                const auto b = static_cast<std::int64_t>(s);
                packed.view()
                    .slice(2, starts[s], starts[s + 1])
                    .copy_from(padded.view().slice(0, b, b + 1).slice(2, 0, lengths[s]));
            }
            return packed;
        };
        const Tensor packed_q = pack(q);
        const Tensor packed_k = pack(k);
        const Tensor packed_v = pack(v);
        const Tensor packed_g = pack(g);
        const AttentionOptions together{.mask = Mask::packed(starts) & Mask::causal()};
        const AttentionResult packed = attention(packed_q, packed_k, packed_v, together);
        const AttentionGradients grads = attention_backward(packed_g, packed_q, packed_k, packed_v, packed, together);
        const AttentionOptions padded{.mask = Mask::key_lengths(lengths) & Mask::causal_top_left()};
        const AttentionResult batch = attention(q, k, v, padded);
        const AttentionGradients batch_grads = attention_backward(g, q, k, v, batch, padded);
        for (std::size_t s = 0; s < lengths.size(); ++s) {
            const auto b = static_cast<std::int64_t>(s);
            const auto own = [&](const Tensor& padded) {
                return padded.view().slice(0, b, b + 1).slice(2, 0, lengths[s]);
            };
            const auto part = [&](const Tensor& all) { return all.view().slice(2, starts[s], starts[s + 1]).clone(); };
            const AttentionOptions options{.mask = Mask::causal()};
            const AttentionResult alone = attention(own(q), own(k), own(v), options);
            EXPECT_TRUE(same_bits(alone.output, part(packed.output)));
            EXPECT_TRUE(same_bits(alone.output, own(batch.output).clone()));
            const AttentionGradients grad = attention_backward(own(g), own(q), own(k), own(v), alone, options);
            EXPECT_TRUE(same_bits(grad.query, part(grads.query)));
            EXPECT_TRUE(same_bits(grad.key, part(grads.key)));
            EXPECT_TRUE(same_bits(grad.value, part(grads.value)));
            EXPECT_TRUE(same_bits(grad.query, own(batch_grads.query).clone()));
            EXPECT_TRUE(same_bits(grad.key, own(batch_grads.key).clone()));
            EXPECT_TRUE(same_bits(grad.value, own(batch_grads.value).clone()));
        }
    }
}

// Backward takes larger blocks of keys for a long sequence, beside a short one as well.
TEST(FlashBackward, LongSequencesHaveBlocksOfMoreKeys) {
    const std::vector<std::int64_t> query_starts = {0, 410, 500};
    const std::vector<std::int64_t> key_starts = {0, 4100, 4140};
    for (const auto& [dtype, bound] : {std::pair(DType::float32, 1e-5), std::pair(DType::bfloat16, 0x1p-6)}) {
        SCOPED_TRACE(name_of(dtype));
        const Tensor q = normal({1, 1, query_starts.back(), 128}, 1, dtype);
        const Tensor k = normal({1, 1, key_starts.back(), 128}, 2, dtype);
        const Tensor v = normal({1, 1, key_starts.back(), 128}, 3, dtype);
        const Tensor g = normal({1, 1, query_starts.back(), 128}, 4, dtype);
        const AttentionOptions together{.mask = Mask::packed(query_starts, key_starts)};
        const AttentionGradients grads = attention_backward(g, q, k, v, attention(q, k, v, together), together);
        for (std::size_t s = 0; s < 2; ++s) {
            const auto queries = [&](const Tensor& x) {
                return x.view().slice(2, query_starts[s], query_starts[s + 1]).clone();
            };
            const auto keys = [&](const Tensor& x) {
                return x.view().slice(2, key_starts[s], key_starts[s + 1]).clone();
            };
            const auto backward = [&](DType type) {
                const Tensor own[] = {queries(q).to(type), keys(k).to(type), keys(v).to(type)};
                return attention_backward(queries(g).to(type), own[0], own[1], own[2],
                                          attention(own[0], own[1], own[2]));
            };
            const AttentionGradients alone = backward(dtype);
            EXPECT_TRUE(same_bits(alone.query, queries(grads.query)));
            EXPECT_TRUE(same_bits(alone.key, keys(grads.key)));
            EXPECT_TRUE(same_bits(alone.value, keys(grads.value)));
            const AttentionGradients want = backward(DType::float64);
            EXPECT_LE(row_error(alone.query, want.query), bound);
            EXPECT_LE(row_error(alone.key, want.key), bound);
            EXPECT_LE(row_error(alone.value, want.value), bound);
        }
    }
}

// Each strip's maximum is above the one before by far more than floats can make up for, or below.
TEST_P(Flash, MaximaThatRiseAndFallFromStripToStrip) {
    for (const double sign : {1.0, -1.0}) {
        Tensor q = full({1, 1, 5, 256}, 1.0, DType::float32);
        Tensor k = normal({1, 1, 1600, 256}, 5);
        const Tensor v = normal({1, 1, 1600, 8}, 6);
        for (std::int64_t j = 0; j < 1600; ++j) {
            for (std::int64_t c = 0; c < 256; ++c) {
                k.data<float>()[j * 256 + c] += static_cast<float>(sign * 5.0 * static_cast<double>(j / 256));
            }
        }
        const AttentionResult want = attention(q, k, v, {.algorithm = Algorithm::reference});
        const AttentionResult found = attention(q, k, v, {.algorithm = Algorithm::flash});
        EXPECT_LE(row_error(found.output, want.output), 5e-4);  // scores of 500 have errors of some 1e-4
        EXPECT_LE(row_error(found.log_sum_exp, want.log_sum_exp), 1e-6);
    }
}

// Views with any strides: rows that lie far apart, heads between the rows, and outputs likewise.
TEST_P(Flash, StridedTensorsEqualTheirCopies) {
    const Tensor packed = normal({2, 150, 3, 2, 32}, 7);  // [batch, length, q k v, heads, dim]
    const auto part = [&](std::int64_t i) { return packed.view().select(2, i).transpose(1, 2); };
    const AttentionOptions options{.mask = Mask::causal()};
    const AttentionResult want = attention(part(0).clone(), part(1).clone(), part(2).clone(), options);
    const Tensor g = normal({2, 2, 150, 32}, 8);
    const AttentionGradients grad_want =
        attention_backward(g, part(0).clone(), part(1).clone(), part(2).clone(), want, options);
    Tensor output = Tensor::empty({2, 150, 2, 32});
    Tensor grads = Tensor::empty({2, 150, 3, 2, 32});
    poison(output);
    poison(grads);
    attention_into({.output = output.view().transpose(1, 2)}, part(0), part(1), part(2), options);
    EXPECT_TRUE(same_bits(output.view().transpose(1, 2).clone(), want.output));
    const auto grad = [&](std::int64_t i) { return grads.view().select(2, i).transpose(1, 2); };
    attention_backward_into({grad(0), grad(1), grad(2), {}}, g, part(0), part(1), part(2), want.output,
                            want.log_sum_exp, options);
    EXPECT_TRUE(same_bits(grad(0).clone(), grad_want.query));
    EXPECT_TRUE(same_bits(grad(1).clone(), grad_want.key));
    EXPECT_TRUE(same_bits(grad(2).clone(), grad_want.value));
}

TEST(TileChoice, StripsCoverAllKeysAndNoneIsShort) {
    using namespace kernels::cpu::flash;
    for (const std::int64_t depth : {0, 1, 32, 64, 128, 576, 1024}) {
        const std::int64_t strip = strip_keys(depth);
        EXPECT_GE(strip, 256);
        EXPECT_LE(strip, 2048);
        for (const std::int64_t keys : {0, 1, 127, 511, 512, 513, 639, 640, 1023, 1024, 1151, 1152, 65536}) {
            const std::int64_t count = strip_count(keys, strip);
            EXPECT_EQ(strip_begin(0, keys, strip), 0);
            EXPECT_EQ(strip_begin(count, keys, strip), keys);
            for (std::int64_t s = 0; s < count; ++s) {
                const std::int64_t width = strip_begin(s + 1, keys, strip) - strip_begin(s, keys, strip);
                EXPECT_LE(width, most_strip_keys(keys, strip));
                EXPECT_TRUE(width >= kLeastStripKeys || count == 1) << keys;
            }
        }
    }
}

#if !defined(__SANITIZE_THREAD__)
// What other threads hold when a program forks, be it for the time of a look into a table, its child must not wait for.
TEST(FlashPrograms, ForkWhileTheyCompute) {
    const Tensor rows = normal({1, 1, 32, 64}, 1);
    const Tensor want = attention(rows, rows, rows).output;
    std::atomic<bool> stop{false};
    std::vector<std::thread> busy;
    for (int i = 0; i < 3; ++i) {
        busy.emplace_back([&] {
            while (!stop) attention(rows, rows, rows);
        });
    }
    int failed = 0;
    for (int i = 0; i < 400 && failed == 0; ++i) {
        const pid_t child = fork();
        if (child == 0) {
            alarm(20);
            const Tensor found = attention(rows, rows, rows).output;
            _exit(std::memcmp(found.data(), want.data(), 32 * 64 * sizeof(float)) == 0 ? 0 : 1);
        }
        int status = -1;
        waitpid(child, &status, 0);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) ++failed;
    }
    stop = true;
    for (std::thread& thread : busy) thread.join();
    EXPECT_EQ(failed, 0);
}
#endif

/// Random mantissas of 24 bits, signs, and powers of 2 in [least, most) that differ from neighbour to neighbour.
Tensor of_all_sizes(const Shape& shape, std::uint64_t seed, int least, int most) {
    Tensor tensor = randn(shape, {.seed = seed});
    for (std::int64_t i = 0; i < tensor.numel(); ++i) {
        const auto step = static_cast<int>((i * 7919 + static_cast<std::int64_t>(seed)) % (most - least));
        tensor.data<float>()[i] = std::ldexp(tensor.data<float>()[i], least + step);
    }
    return tensor;
}

// A product by a weight of 1 is exact, however floats are multiplied: no bit of a value is lost.
TEST_P(Flash, TheValueOfASingleKeyIsTheOutput) {
    const Tensor q = randn({1, 2, 40, 24}, {.seed = 1});
    const Tensor k = randn({1, 2, 1, 24}, {.seed = 2});
    const Tensor v = of_all_sizes({1, 2, 1, 70}, 3, -90, 120);
    const Tensor output = attention(q, k, v).output;
    for (std::int64_t head = 0; head < 2; ++head) {
        const TensorView value = v.view().select(0, 0).select(0, head).select(0, 0);
        for (std::int64_t row = 0; row < 40; ++row) {
            ASSERT_TRUE(same_bits(output.view().select(0, 0).select(0, head).select(0, row).clone(), value.clone()));
        }
    }
}

// Nor of a query or key: with one key the log-sum-exp is the score. Of a product that is cut into parts 2^-22 at most
// is left out (the largest by mantissas of 0x80FFFF), a sum of 65 is rounded by 65 u, and the result twice.
TEST_P(Flash, AScoreHasAllBitsOfItsOperands) {
    const std::int64_t depth = 65;
    const auto last_bits = [&](Tensor x, std::int64_t from) {
        for (std::int64_t i = from; i < x.numel(); ++i) x.data<float>()[i] = std::bit_cast<float>(0x3F80FFFFU);
        return x;
    };
    const Tensor q = last_bits(of_all_sizes({1, 1, 40, depth}, 1, -10, 10), 30 * depth);
    const Tensor zero({1, 1, 1, 1});
    for (const bool largest : {false, true}) {
        const Tensor k = last_bits(of_all_sizes({1, 1, 1, depth}, 3, -10, 10), largest ? 0 : depth);
        const Tensor v = randn({1, 1, 1, 8}, {.seed = 5});
        // With a bias operands stay as they are; without one the queries are scaled before.
        const Tensor sums = attention(q, k, v, {.bias = zero.view(), .scale = 0.25}).log_sum_exp;
        for (std::int64_t row = 0; row < 40; ++row) {
            double score = 0.0;
            double scale = 0.0;
            for (std::int64_t c = 0; c < depth; ++c) {
                const double term = 0.25 * q.data<float>()[row * depth + c] * k.data<float>()[c];
                score += term;
                scale += std::fabs(term);
            }
            // All terms the same: 2^-22, and what 65 of them are rounded by, 1.2e-7 as seen on vectors and less on
            // tiles. Thirds that are cut off and never rounded lose 4.7e-7.
            const double bound = largest && row >= 30 ? 3.2e-7 : 6e-7;
            EXPECT_NEAR(sums.data<float>()[row], score, bound * scale) << row;
        }
    }
}

// A log-sum-exp is rounded once, as the natural logarithm that it is (u is 2^-24, and 4 u half of the distance between
// floats from 4 to 8), and a weight that is had from it again by what its exponential is rounded, 2 u: nowhere by a
// logarithm of 2, which is larger. A logarithm itself is off by u.
TEST_P(Flash, WeightsOfTheBackwardPassAreRoundedAsTheirLogSumExp) {
    constexpr double kUnit = 0x1p-24;
    const std::int64_t queries = 12;
    const Tensor q({1, 1, queries, 8});
    Tensor grad_output({1, 1, queries, 8});
    for (std::int64_t c = 0; c < 8; ++c) grad_output.data<float>()[c] = 1.0F;  // of one query: sums of one term
    const Tensor zero({1, 1, 1, 1});
    for (const bool biased : {false, true}) {
        const AttentionOptions options = biased ? AttentionOptions{.bias = zero.view()} : AttentionOptions{};
        for (std::int64_t keys = 300; keys < 2000; keys += 29) {
            const Tensor k({1, 1, keys, 8});
            const auto forward = attention(q, k, k, options);
            const double exact = std::log(static_cast<double>(keys));
            EXPECT_NEAR(forward.log_sum_exp.data<float>()[0], exact, 5 * kUnit) << keys;
            const auto gradients = attention_backward(grad_output, q, k, k, forward, options);
            const double weight = gradients.value.data<float>()[0];
            EXPECT_NEAR(weight * static_cast<double>(keys), 1.0, 7 * kUnit) << keys << (biased ? " biased" : "");
        }
    }
}

}  // namespace
}  // namespace attend::testing
