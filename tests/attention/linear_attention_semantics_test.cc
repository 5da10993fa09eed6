// What linear attention promises: states that chain, steps that equal the whole, the same bits alone and in company,
// padding that is never read, and errors that say what was expected.
#include "tests/attention/linear_cases.h"
#include "tests/support/compare.h"

#include <attend/core/error.h>
#include <attend/core/philox.h>
#include <attend/core/scratch.h>
#include <attend/core/threads.h>
#include <attend/kernels/cpu/isa.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace attend::testing {
namespace {

using kernels::cpu::available_isas;
using kernels::cpu::Isa;
using kernels::cpu::IsaOverride;

constexpr double kFloat32 = 5e-6;

/// Tokens [begin, end) of a case's options.
LinearAttentionOptions options_of(const LinearInputs& inputs, std::int64_t begin, std::int64_t end) {
    LinearAttentionOptions options = inputs.options;
    if (options.decay && options.decay->rank() > 1) options.decay = inputs.decay.view().slice(2, begin, end);
    if (options.beta) options.beta = inputs.beta.view().slice(2, begin, end);
    return options;
}

/// All that two calls return, bit for bit.
void expect_same_bits(const LinearAttentionResult& a, const LinearAttentionResult& b) {
    EXPECT_TRUE(same_bits(a.output, b.output));
    EXPECT_TRUE(same_bits(a.denominator, b.denominator));
    EXPECT_TRUE(same_bits(a.state, b.state));
    EXPECT_TRUE(same_bits(a.normaliser, b.normaliser));
}

void expect_same_bits(const LinearAttentionGradients& a, const LinearAttentionGradients& b) {
    EXPECT_TRUE(same_bits(a.query, b.query));
    EXPECT_TRUE(same_bits(a.key, b.key));
    EXPECT_TRUE(same_bits(a.value, b.value));
    EXPECT_TRUE(same_bits(a.decay, b.decay));
    EXPECT_TRUE(same_bits(a.beta, b.beta));
    EXPECT_TRUE(same_bits(a.initial_state, b.initial_state));
    EXPECT_TRUE(same_bits(a.initial_normaliser, b.initial_normaliser));
}

TEST(LinearAttentionSemantics, TwoHalvesWithAStateAreTheWhole) {
    for (const LinearCase& c : linear_cases()) {
        if (!c.causal || !c.state) continue;
        SCOPED_TRACE(c.name());
        const LinearInputs inputs(c, DType::float32, 1);
        const LinearAttentionResult whole = inputs.forward();
        const auto part = [&](const Tensor& tensor, std::int64_t begin, std::int64_t end) {
            return tensor.view().slice(2, begin, end);
        };
        constexpr std::int64_t kCut = 37;
        const LinearAttentionResult first =
            linear_attention_with_state(part(inputs.query, 0, kCut), part(inputs.key, 0, kCut),
                                        part(inputs.value, 0, kCut), options_of(inputs, 0, kCut));
        LinearAttentionOptions options = options_of(inputs, kCut, c.keys);
        options.initial_state = first.state.view();
        if (c.normalise) options.initial_normaliser = first.normaliser.view();
        const LinearAttentionResult second =
            linear_attention_with_state(part(inputs.query, kCut, c.keys), part(inputs.key, kCut, c.keys),
                                        part(inputs.value, kCut, c.keys), options);
        const Tensor magnitude = magnitude_of(inputs);
        EXPECT_LE(row_error(first.output, part(whole.output, 0, kCut), part(magnitude, 0, kCut)), kFloat32);
        EXPECT_LE(row_error(second.output, part(whole.output, kCut, c.keys), part(magnitude, kCut, c.keys)), kFloat32);
        EXPECT_LE(row_error(second.state, whole.state), 10.0 * kFloat32);
    }
}

TEST(LinearAttentionSemantics, StepsEqualTheChunkwiseResult) {
    for (const LinearCase& c : linear_cases()) {
        if (!c.causal || c.state) continue;
        SCOPED_TRACE(c.name());
        const LinearInputs inputs(c, DType::float32, 2);
        const LinearAttentionResult whole = inputs.forward();
        LinearAttentionState state(c.batch, c.kv_heads, c.dim, c.value_dim);
        Tensor steps = Tensor::empty(whole.output.shape());
        for (std::int64_t t = 0; t < c.keys; ++t) {
            const Tensor row = state.step(inputs.query.view().slice(2, t, t + 1), inputs.key.view().slice(2, t, t + 1),
                                          inputs.value.view().slice(2, t, t + 1), options_of(inputs, t, t + 1));
            steps.view().slice(2, t, t + 1).copy_from(row);
        }
        EXPECT_LE(row_error(steps, whole.output, magnitude_of(inputs)), kFloat32);
        EXPECT_LE(row_error(state.state(), whole.state), 10.0 * kFloat32);
    }
}

TEST(LinearAttentionSemantics, StepsIntoMemoryOfTheCaller) {
    const LinearCase c{.map = FeatureMap::identity, .queries = 1, .keys = 1};
    const LinearInputs inputs(c, DType::float32, 2);
    LinearAttentionState one(c.batch, c.kv_heads, c.dim, c.value_dim);
    LinearAttentionState other(c.batch, c.kv_heads, c.dim, c.value_dim);
    for (int t = 0; t < 2; ++t) {
        const Tensor row = one.step(inputs.query, inputs.key, inputs.value, inputs.options);
        Tensor wide = full({c.batch, c.heads, 1, c.value_dim + 3}, 7.0);
        other.step_into(wide.view().slice(3, 1, c.value_dim + 1), inputs.query, inputs.key, inputs.value,
                        inputs.options);
        EXPECT_TRUE(same_bits(wide.view().slice(3, 1, c.value_dim + 1).clone(), row));
        EXPECT_EQ(wide.item({0, 0, 0, 0}), 7.0);
        EXPECT_EQ(wide.item({0, 0, 0, c.value_dim + 1}), 7.0);
        EXPECT_TRUE(same_bits(one.state(), other.state()));
    }
    Tensor narrow({c.batch, c.heads, 1, c.value_dim - 1});
    EXPECT_THROW(other.step_into(narrow, inputs.query, inputs.key, inputs.value, inputs.options), ShapeError);
}

TEST(LinearAttentionSemantics, BitsDoNotDependOnThreads) {
    for (LinearCase c : linear_cases()) {
        if (!c.state && c.causal) continue;
        c.batch = 2;
        c.heads = 2;
        c.kv_heads = 2;
        SCOPED_TRACE(c.name());
        const LinearInputs inputs(c, DType::float32, 3);
        set_num_threads(1);
        const LinearAttentionResult one = inputs.forward();
        const LinearAttentionGradients one_back = inputs.backward(one);
        for (const int threads : {2, 3, 7}) {
            set_num_threads(threads);
            const LinearAttentionResult more = inputs.forward();
            expect_same_bits(one, more);
            const LinearAttentionGradients back = inputs.backward(more);
            expect_same_bits(one_back, back);
        }
        set_num_threads(0);
    }
}

// A channel whose keys are all -inf weighs nothing, on every path.
TEST(LinearAttentionSemantics, AChannelOfMinusInfinityHasNoWeight) {
    Tensor key = randn({1, 1, 6, 2}, {.seed = 1});
    for (std::int64_t t = 0; t < 6; ++t) key.at<float>({0, 0, t, 0}) = -std::numeric_limits<float>::infinity();
    const Tensor query = randn({1, 1, 4, 2}, {.seed = 2});
    const Tensor value = randn({1, 1, 6, 3}, {.seed = 3});
    const LinearAttentionOptions options{.feature_map = FeatureMap::softmax_keys};
    LinearAttentionOptions exact = options;
    exact.algorithm = Algorithm::reference;
    const Tensor want = linear_attention(query, key, value, exact);
    for (const double x : values(want)) EXPECT_TRUE(std::isfinite(x));
    EXPECT_LE(row_error(linear_attention(query, key, value, options), want), 5e-6);
    EXPECT_LE(
        row_error(linear_attention(query.to(DType::float64), key.to(DType::float64), value.to(DType::float64), options),
                  want),
        5e-6);
}

// Whatever a thread's scratch held before, NaN included, does not matter.
TEST(LinearAttentionSemantics, ScratchIsNotReadBeforeItIsWritten) {
    const auto poison_scratch = [] {
        constexpr std::size_t kBytes = std::size_t{1} << 20U;
        for (const std::span<std::byte> scratch : {thread_scratch(kBytes), thread_workspace(kBytes)}) {
            std::memset(scratch.data(), 0xFF, scratch.size());
        }
    };
    set_num_threads(1);
    for (const Isa isa : available_isas()) {
        const IsaOverride held(isa);
        for (const LinearCase& c : linear_cases()) {
            SCOPED_TRACE(c.name() + " " + std::string(name_of(isa)));
            const LinearInputs inputs(c, DType::float32, 3);
            const LinearAttentionResult one = inputs.forward();
            const LinearAttentionGradients one_back = inputs.backward(one);
            poison_scratch();
            const LinearAttentionResult more = inputs.forward();
            poison_scratch();
            const LinearAttentionGradients back = inputs.backward(more);
            expect_same_bits(one, more);
            expect_same_bits(one_back, back);
        }
    }
    set_num_threads(0);
}

// Heads of a long sequence: threads share its tokens. Queries behind the last key and the gradient of the final state
// are part of it.
TEST(LinearAttentionSemantics, BitsOfALongSequenceDoNotDependOnThreads) {
    for (const bool causal : {false, true}) {
        LinearCase c{.normalise = true, .causal = causal, .state = true, .batch = 1, .heads = 2, .kv_heads = 1};
        c.queries = c.keys = 9000;
        c.dim = c.value_dim = 16;
        for (const CaseDecay decay : {CaseDecay::none, CaseDecay::head, CaseDecay::token, CaseDecay::channel}) {
            if (!causal && decay != CaseDecay::none) continue;
            c.decay = decay;
            SCOPED_TRACE(c.name());
            LinearInputs inputs(c, DType::float32, 4);
            inputs.options.key_lengths = {8970};
            set_num_threads(1);
            const LinearAttentionResult one = inputs.forward();
            const LinearAttentionGradients one_back = inputs.backward(one);
            for (const int threads : {2, 7}) {
                set_num_threads(threads);
                const LinearAttentionResult more = inputs.forward();
                const LinearAttentionGradients back = inputs.backward(more);
                expect_same_bits(one, more);
                expect_same_bits(one_back, back);
            }
            set_num_threads(0);
        }
    }
}

/// The rows of [1, heads, L, width].
Tensor rows_of(const Tensor& tensor, std::int64_t begin, std::int64_t end) {
    return tensor.view().slice(2, begin, end).clone();
}

TEST(LinearAttentionSemantics, PackedEqualsAlone) {
    for (LinearCase c : linear_cases()) {
        if (c.state || c.decay == CaseDecay::head) continue;
        SCOPED_TRACE(c.name());
        const LinearInputs inputs(c, DType::float32, 5);
        const std::vector<std::int64_t> starts{0, 1, 1, 34, 66};  // the rows behind belong to nobody
        LinearAttentionOptions options = inputs.options;
        options.query_starts = starts;
        const Tensor packed = linear_attention(inputs.query, inputs.key, inputs.value, options);
        const bool normalised = c.normalise;
        LinearAttentionResult result;
        if (c.map == FeatureMap::softmax_keys) {
            result.output = packed;
        } else {
            result = linear_attention_with_state(inputs.query, inputs.key, inputs.value, options);
            EXPECT_TRUE(same_bits(packed, result.output));
        }
        const LinearAttentionGradients together =
            linear_attention_backward(inputs.grad_output, inputs.query, inputs.key, inputs.value, result, options);
        for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
            const std::int64_t begin = starts[s];
            const std::int64_t end = starts[s + 1];
            const Tensor q = rows_of(inputs.query, begin, end);
            const Tensor k = rows_of(inputs.key, begin, end);
            const Tensor v = rows_of(inputs.value, begin, end);
            const Tensor grad = rows_of(inputs.grad_output, begin, end);
            const LinearAttentionOptions own = options_of(inputs, begin, end);
            LinearAttentionResult alone;
            if (normalised) {
                alone = linear_attention_with_state(q, k, v, own);
            } else {
                alone.output = linear_attention(q, k, v, own);
            }
            EXPECT_TRUE(same_bits(alone.output, rows_of(packed, begin, end))) << s;
            const LinearAttentionGradients back = linear_attention_backward(grad, q, k, v, alone, own);
            EXPECT_TRUE(same_bits(back.query, rows_of(together.query, begin, end))) << s;
            EXPECT_TRUE(same_bits(back.key, rows_of(together.key, begin, end))) << s;
            EXPECT_TRUE(same_bits(back.value, rows_of(together.value, begin, end))) << s;
            if (own.decay) {
                EXPECT_TRUE(same_bits(back.decay, rows_of(together.decay, begin, end))) << s;
            }
            if (own.beta) {
                EXPECT_TRUE(same_bits(back.beta, rows_of(together.beta, begin, end))) << s;
            }
        }
        EXPECT_EQ(row_error(rows_of(packed, 66, 70), zeros({1, 2, 4, 24})), 0.0);
        EXPECT_EQ(row_error(rows_of(together.key, 66, 70), zeros({1, 1, 4, 40})), 0.0);
    }
}

TEST(LinearAttentionSemantics, PackedEqualsPadded) {
    const std::vector<std::int64_t> starts{0, 1, 22, 25, 70};
    for (LinearCase c : linear_cases()) {
        if (c.state || c.decay != CaseDecay::none || c.delta) continue;
        SCOPED_TRACE(c.name());
        const LinearInputs inputs(c, DType::float32, 5);
        LinearAttentionOptions options = inputs.options;
        options.query_starts = starts;
        const Tensor packed = linear_attention(inputs.query, inputs.key, inputs.value, options);
        options.query_starts.clear();
        options.key_lengths.clear();
        for (std::size_t s = 0; s + 1 < starts.size(); ++s) options.key_lengths.push_back(starts[s + 1] - starts[s]);
        const auto padded_of = [&](const Tensor& from) {
            const Shape& shape = from.shape();
            Tensor padded({4, shape[1], 45, shape[3]});
            for (std::int64_t s = 0; s < 4; ++s) {
                const auto at = static_cast<std::size_t>(s);
                padded.view()
                    .slice(0, s, s + 1)
                    .slice(2, 0, starts[at + 1] - starts[at])
                    .copy_from(from.view().slice(2, starts[at], starts[at + 1]));
            }
            return padded;
        };
        const Tensor padded =
            linear_attention(padded_of(inputs.query), padded_of(inputs.key), padded_of(inputs.value), options);
        for (std::int64_t s = 0; s < 4; ++s) {
            const auto at = static_cast<std::size_t>(s);
            EXPECT_TRUE(same_bits(padded.view().slice(0, s, s + 1).slice(2, 0, starts[at + 1] - starts[at]).clone(),
                                  rows_of(packed, starts[at], starts[at + 1])))
                << s;
        }
    }
}

// A feature function that throws at a later head leaves the state as it was.
TEST(LinearAttentionSemantics, StepsThatThrowLeaveTheState) {
    LinearAttentionOptions options;
    options.feature_map = FeatureMap::function;
    int left = 100;
    options.function = FeatureFunction{.map = [&](std::span<const double> x, std::span<double> y) {
        if (--left < 0) throw std::runtime_error("no more");
        std::copy(x.begin(), x.end(), y.begin());
    }};
    set_num_threads(1);
    LinearAttentionState state(1, 3, 4, 4);
    const Tensor token = normal({1, 3, 1, 4}, 1);
    static_cast<void>(state.step(token, token, token, options));
    const Tensor before = state.state();
    left = 3;
    EXPECT_THROW(static_cast<void>(state.step(token, token, token, options)), std::runtime_error);
    set_num_threads(0);
    EXPECT_TRUE(same_bits(state.state(), before));
    EXPECT_THROW(state.reorder(std::vector<std::int64_t>{1}), ValueError);
    EXPECT_TRUE(same_bits(state.state(), before));
}

TEST(LinearAttentionSemantics, AloneEqualsInABatch) {
    for (LinearCase c : linear_cases()) {
        c.batch = 3;
        SCOPED_TRACE(c.name());
        if (c.state) continue;
        const LinearInputs inputs(c, DType::float32, 6);
        const LinearAttentionResult all = inputs.forward();
        const LinearAttentionGradients all_back = inputs.backward(all);
        LinearAttentionOptions options = inputs.options;
        if (options.decay && options.decay->rank() > 1) options.decay = inputs.decay.view().slice(0, 1, 2);
        if (options.beta) options.beta = inputs.beta.view().slice(0, 1, 2);
        const auto entry = [](const Tensor& tensor) { return tensor.view().slice(0, 1, 2).clone(); };
        const Tensor q = entry(inputs.query);
        const Tensor k = entry(inputs.key);
        const Tensor v = entry(inputs.value);
        LinearAttentionResult alone;
        if (c.normalise) {
            alone = linear_attention_with_state(q, k, v, options);
        } else {
            alone.output = linear_attention(q, k, v, options);
        }
        EXPECT_TRUE(same_bits(alone.output, entry(all.output)));
        const LinearAttentionGradients back =
            linear_attention_backward(entry(inputs.grad_output), q, k, v, alone, options);
        EXPECT_TRUE(same_bits(back.query, entry(all_back.query)));
        EXPECT_TRUE(same_bits(back.key, entry(all_back.key)));
        EXPECT_TRUE(same_bits(back.value, entry(all_back.value)));
        if (c.delta) {
            EXPECT_TRUE(same_bits(back.beta, entry(all_back.beta)));
        }
    }
}

TEST(LinearAttentionSemantics, PaddingIsNeverRead) {
    constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
    for (const LinearCase& c : linear_cases()) {
        if (c.state) continue;
        SCOPED_TRACE(c.name());
        LinearInputs inputs(c, DType::float32, 7);
        const std::int64_t length = 41;
        LinearAttentionOptions options = inputs.options;
        options.key_lengths = {length};
        const auto call = [&] { return linear_attention(inputs.query, inputs.key, inputs.value, options); };
        const Tensor want = call();
        inputs.key.view().slice(2, length, c.keys).fill(kNan);
        inputs.value.view().slice(2, length, c.keys).fill(kNan);
        if (c.decay == CaseDecay::token || c.decay == CaseDecay::channel) {
            inputs.decay.view().slice(2, length, c.keys).fill(kNan);
        }
        if (c.delta) inputs.beta.view().slice(2, length, c.keys).fill(kNan);
        for (const Isa isa : available_isas()) {
            const IsaOverride forced(isa);
            LinearAttentionResult result;
            result.output = call();
            EXPECT_LE(row_error(result.output, want), 1e-5);
            if (c.normalise) result = linear_attention_with_state(inputs.query, inputs.key, inputs.value, options);
            const LinearAttentionGradients back =
                linear_attention_backward(inputs.grad_output, inputs.query, inputs.key, inputs.value, result, options);
            EXPECT_EQ(row_error(rows_of(back.key, length, c.keys), zeros({1, 1, c.keys - length, c.dim})), 0.0);
            for (const Tensor* gradient : {&back.query, &back.key, &back.value, &back.decay, &back.beta}) {
                EXPECT_EQ(row_error(*gradient, *gradient), 0.0);
                for (const double x : values(*gradient)) ASSERT_FALSE(std::isnan(x));
            }
        }
    }
}

// NaN in a token reaches the rows from it on and none before.
TEST(LinearAttentionSemantics, NanStaysBehindItsToken) {
    for (const LinearCase& c : linear_cases()) {
        if (!c.causal || c.state) continue;
        SCOPED_TRACE(c.name());
        for (const bool in_value : {false, true}) {
            LinearInputs inputs(c, DType::float32, 8);
            const Tensor before = inputs.forward().output;
            Tensor& poisoned = in_value ? inputs.value : inputs.key;
            poisoned.at<float>({0, 0, 39, 3}) = std::numeric_limits<float>::quiet_NaN();
            for (const Isa isa : available_isas()) {
                const IsaOverride forced(isa);
                const Tensor found = inputs.forward().output;
                EXPECT_LE(row_error(rows_of(found, 0, 39), rows_of(before, 0, 39)), 1e-5);
                EXPECT_TRUE(std::isnan(found.item({0, 0, 39, 3})));
                EXPECT_TRUE(std::isnan(found.item({0, 1, 69, 3})));
            }
        }
    }
}

TEST(LinearAttentionSemantics, Errors) {
    const Tensor x = zeros({1, 2, 4, 8});
    const Tensor decay = zeros({2});
    const Tensor beta = zeros({1, 2, 4});
    const auto message = [&](const LinearAttentionOptions& options) {
        return message_of<ValueError>([&] { linear_attention(x, x, x, options); });
    };
    const std::string other =
        "[linear_attention] expected a feature map other than softmax_keys (whose sum over all "
        "positions has no order) for ";
    EXPECT_EQ(message({.causal = true}), other + "a causal call, found softmax_keys");
    EXPECT_EQ(message({.decay = decay.view()}), other + "a decay, found softmax_keys");
    EXPECT_EQ(message({.feature_map = FeatureMap::relu, .decay = decay.view()}),
              "[linear_attention] expected causal for a decay, found a call that is not causal");
    EXPECT_EQ(message({.feature_map = FeatureMap::relu, .beta = beta.view()}),
              "[linear_attention] expected causal for the delta rule, found a call that is not causal");
    EXPECT_EQ(message({.feature_map = FeatureMap::relu, .normalise = true, .causal = true, .beta = beta.view()}),
              "[linear_attention] expected no normalisation for the delta rule, found normalise");
    EXPECT_EQ(message({.feature_map = FeatureMap::function}),
              "[linear_attention] expected a function `map` in options.function for FeatureMap::function, found none");
    const Tensor wrong = zeros({3});
    EXPECT_EQ(message_of<ShapeError>([&] {
                  linear_attention(x, x, x, {.feature_map = FeatureMap::relu, .causal = true, .decay = wrong.view()});
              }),
              "[linear_attention] expected a decay of shape [2], [1, 2, 4] or [1, 2, 4, 8], found [3]");
    EXPECT_EQ(message_of<ShapeError>([&] {
                  linear_attention(x, zeros({1, 2, 5, 8}), zeros({1, 2, 5, 8}),
                                   {.feature_map = FeatureMap::relu, .causal = true});
              }),
              "[linear_attention] expected as many keys as queries for causal linear attention, found 5 and 4");
}

}  // namespace
}  // namespace attend::testing
