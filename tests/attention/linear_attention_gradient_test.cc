// Gradients of linear attention: finite differences of the quadratic form in double, and the fast paths against the
// token by token one.
#include "tests/attention/linear_cases.h"
#include "tests/support/compare.h"

#include <attend/core/philox.h>
#include <attend/kernels/cpu/isa.h>
#include <attend/kernels/cpu/linear/delta_gradients.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace attend::testing {
namespace {

using kernels::cpu::available_isas;
using kernels::cpu::Isa;
using kernels::cpu::IsaOverride;
using kernels::cpu::linear::kDeltaSegment;

double dot(const Tensor& a, const Tensor& b) {
    double sum = 0.0;
    for (std::int64_t e = 0; e < a.numel(); ++e) sum += a.data<double>()[e] * b.data<double>()[e];
    return sum;
}

double loss(const LinearInputs& inputs) {
    const LinearAttentionResult result = inputs.forward(Algorithm::reference);
    double sum = dot(inputs.grad_output, result.output);
    if (inputs.grad_state.numel() > 0) sum += dot(inputs.grad_state, result.state);
    if (inputs.grad_normaliser.numel() > 0) sum += dot(inputs.grad_normaliser, result.normaliser);
    return sum;
}

void expect_differences(const LinearInputs& inputs, Tensor& input, const Tensor& gradient, const char* name) {
    ASSERT_TRUE(gradient.shape() == input.shape()) << name;
    constexpr double kStep = 1e-5;
    for (std::int64_t e = 0; e < input.numel(); ++e) {
        double& x = input.data<double>()[e];
        const double before = x;
        x = before + kStep;
        const double above = loss(inputs);
        x = before - kStep;
        const double below = loss(inputs);
        x = before;
        const double want = (above - below) / (2.0 * kStep);
        EXPECT_NEAR(gradient.data<double>()[e], want, 1e-6 * std::max(1.0, std::fabs(want))) << name << " " << e;
    }
}

TEST(LinearAttentionGradient, FiniteDifferences) {
    for (LinearCase c : linear_cases()) {
        c.queries = 5;
        c.keys = c.causal ? 5 : 4;
        c.dim = 3;
        c.value_dim = 2;
        SCOPED_TRACE(c.name());
        LinearInputs inputs(c, DType::float64, 51);
        const LinearAttentionGradients found = inputs.backward(inputs.forward());
        expect_differences(inputs, inputs.query, found.query, "query");
        expect_differences(inputs, inputs.key, found.key, "key");
        expect_differences(inputs, inputs.value, found.value, "value");
        if (inputs.options.decay) expect_differences(inputs, inputs.decay, found.decay, "decay");
        if (inputs.options.beta) expect_differences(inputs, inputs.beta, found.beta, "beta");
        if (inputs.options.initial_state) expect_differences(inputs, inputs.state, found.initial_state, "state");
        if (inputs.options.initial_normaliser) {
            expect_differences(inputs, inputs.normaliser, found.initial_normaliser, "normaliser");
        }
    }
}

/// Relative to the tensor's largest element, and at least 1 (or more), what a gradient of these inputs is made of: it
/// is a sum over tokens that may cancel (that of a lone normalised token vanishes).
double error_of(const Tensor& found, const Tensor& want, double at_least = 1.0) {
    if (!(found.shape() == want.shape())) return std::numeric_limits<double>::infinity();
    const std::vector<double> a = values(found);
    const std::vector<double> b = values(want);
    double largest = at_least;
    double error = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        largest = std::max(largest, std::fabs(b[i]));
        error = std::max(error, std::isnan(a[i]) ? std::numeric_limits<double>::infinity() : std::fabs(a[i] - b[i]));
    }
    return error / largest;
}

/// What a decay's gradient is made of, without a map: q_i . dq_i of the rows behind it, which may cancel with those of
/// the keys. That of a head is the sum over all tokens.
double decay_terms(const LinearInputs& inputs, const LinearAttentionGradients& gradients) {
    if (inputs.options.feature_map != FeatureMap::identity) return 1.0;
    const std::vector<double> q = values(inputs.query);
    const std::vector<double> dq = values(gradients.query);
    const auto width = static_cast<std::size_t>(inputs.query.size(-1));
    double most = 1.0;
    double sum = 0.0;
    for (std::size_t begin = 0; begin < q.size(); begin += width) {
        double row = 0.0;
        for (std::size_t e = begin; e < begin + width; ++e) row += std::fabs(q[e] * dq[e]);
        most = std::max(most, row);
        sum += row;
    }
    return inputs.decay.rank() == 1 ? std::max(most, sum) : most;
}

/// @param forward what backward reads comes from: the quadratic form, or for long sequences the fast path
void expect_gradients(const LinearInputs& inputs, double bound, Algorithm forward = Algorithm::reference) {
    const LinearAttentionResult result = inputs.forward(forward);
    const LinearAttentionGradients want = inputs.backward(result, Algorithm::reference);
    const double terms = decay_terms(inputs, want);
    for (const Isa isa : available_isas()) {
        SCOPED_TRACE(name_of(isa));
        const IsaOverride forced(isa);
        const LinearAttentionGradients found = inputs.backward(inputs.forward());
        EXPECT_LE(error_of(found.query, want.query), bound);
        EXPECT_LE(error_of(found.key, want.key), bound);
        EXPECT_LE(error_of(found.value, want.value), bound);
        EXPECT_LE(error_of(found.decay, want.decay, terms), bound);
        EXPECT_LE(error_of(found.beta, want.beta), bound);
        EXPECT_LE(error_of(found.initial_state, want.initial_state), bound);
        EXPECT_LE(error_of(found.initial_normaliser, want.initial_normaliser), bound);
    }
}

TEST(LinearAttentionGradient, FastEqualsPlain) {
    for (const LinearCase& c : linear_cases()) {
        SCOPED_TRACE(c.name());
        expect_gradients(LinearInputs(c, DType::float32, 52), 1e-5);
        expect_gradients(LinearInputs(c, DType::bfloat16, 53), 0x1p-7);
    }
}

TEST(LinearAttentionGradient, OddSizes) {
    std::uint64_t seed = 60;
    for (const std::int64_t length : {0, 1, 2, 31, 33, 65}) {
        for (const auto& [dim, value_dim] :
             {std::pair<std::int64_t, std::int64_t>{1, 1}, {3, 70}, {33, 17}, {64, 64}}) {
            for (const CaseDecay decay : {CaseDecay::none, CaseDecay::token, CaseDecay::channel}) {
                LinearCase c{.normalise = true, .decay = decay, .queries = length, .keys = length};
                c.dim = dim;
                c.value_dim = value_dim;
                SCOPED_TRACE(c.name());
                expect_gradients(LinearInputs(c, DType::float32, ++seed), 1e-5);
                c.normalise = false;
                c.delta = true;
                c.map = FeatureMap::identity;
                expect_gradients(LinearInputs(c, DType::float32, ++seed), 1e-5);
            }
            LinearCase c{.normalise = true, .causal = false, .queries = length, .keys = 65 - length};
            c.dim = dim;
            c.value_dim = value_dim;
            SCOPED_TRACE(c.name());
            expect_gradients(LinearInputs(c, DType::float32, ++seed), 1e-5);
        }
    }
}

TEST(LinearAttentionGradient, LongSequences) {
    for (const CaseDecay decay : {CaseDecay::none, CaseDecay::token, CaseDecay::channel}) {
        for (const bool delta : {false, true}) {
            LinearCase c{.decay = decay, .delta = delta, .heads = 1, .queries = 1100, .keys = 1100};
            c.map = delta ? FeatureMap::identity : FeatureMap::elu_plus_one;
            c.dim = c.value_dim = 16;
            SCOPED_TRACE(c.name());
            expect_gradients(LinearInputs(c, DType::float32, 71), 2e-5);
        }
    }
}

/// Expects a decay's gradient to be the quadratic form's, as a whole, on the instruction sets asked for.
void expect_decay_gradient(const LinearInputs& inputs, const std::vector<Isa>& isas, double bound) {
    const LinearAttentionResult result = inputs.forward();
    const std::vector<double> want = values(inputs.backward(result, Algorithm::reference).decay);
    double scale = 0.0;
    for (const double number : want) scale += number * number;
    for (const Isa isa : isas) {
        const IsaOverride forced(isa);
        const std::vector<double> found = values(inputs.backward(result).decay);
        double error = 0.0;
        for (std::size_t h = 0; h < want.size(); ++h) error += (found[h] - want[h]) * (found[h] - want[h]);
        EXPECT_LE(std::sqrt(error), bound * std::sqrt(scale)) << name_of(isa);
    }
}

// A head's decay sums what all tokens say of all later ones: rounding may not grow with the length. With many heads and
// with few, which go by groups of tokens.
TEST(LinearAttentionGradient, DecaysOfLongHeadsAreExact) {
    for (const std::int64_t heads : {1, 4}) {
        for (const double decay : {-1.0, -0.03}) {
            LinearCase c{.map = FeatureMap::identity, .decay = CaseDecay::head, .heads = heads, .kv_heads = heads};
            c.queries = c.keys = 30000;
            c.dim = c.value_dim = 8;
            LinearInputs inputs(c, DType::float32, 74);
            inputs.decay.view().fill(decay);
            SCOPED_TRACE(std::to_string(heads) + " heads, " + std::to_string(decay));
            expect_decay_gradient(inputs, {available_isas().back()}, 5e-4);
        }
    }
}

// What a token has of itself does not depend on decays, and is nearly all there is where they forget nearly everything:
// it must not be summed and subtracted again. exp(-14) is less than a float's rounding.
void expect_exact_decays(const LinearCase& c, std::int64_t key_length) {
    for (const double decay : {-4.0, -8.0, -14.0}) {
        LinearInputs inputs(c, DType::float32, 75);
        inputs.decay.view().fill(decay);
        inputs.options.key_lengths = {key_length};
        SCOPED_TRACE(c.name() + " " + std::to_string(key_length) + " keys, " + std::to_string(decay));
        // A head's number is a sum over tokens of both signs.
        expect_decay_gradient(inputs, available_isas(), c.decay == CaseDecay::head ? 5e-4 : 1e-5);
    }
}

TEST(LinearAttentionGradient, StrongDecaysAreExact) {
    for (const CaseDecay kind : {CaseDecay::head, CaseDecay::token, CaseDecay::channel}) {
        for (const bool delta : {false, true}) {
            LinearCase c{.map = FeatureMap::identity, .decay = kind, .delta = delta, .kv_heads = 2};
            c.queries = c.keys = 2100;
            c.dim = c.value_dim = 16;
            expect_exact_decays(c, 2100);
        }
    }
}

// Nor what the last token has with the final state's gradient and with queries behind it; many tokens of one head go by
// groups.
TEST(LinearAttentionGradient, StrongDecaysOfLastTokensAreExact) {
    for (const CaseDecay kind : {CaseDecay::head, CaseDecay::token, CaseDecay::channel}) {
        for (const bool delta : {false, true}) {
            for (const bool state : {false, true}) {
                for (const std::int64_t keys : {1, 61, 64}) {
                    LinearCase c{.map = FeatureMap::identity, .decay = kind, .delta = delta, .state = state};
                    c.queries = c.keys = keys + 9;
                    c.dim = c.value_dim = 16;
                    expect_exact_decays(c, keys);
                }
            }
        }
        LinearCase c{.map = FeatureMap::identity, .decay = kind, .state = true, .heads = 1};
        c.queries = c.keys = 4110;
        c.dim = c.value_dim = 7;
        expect_exact_decays(c, 4100);
    }
}

// Few heads and many tokens: their states are summed in groups.
TEST(LinearAttentionGradient, InGroupsOfTokens) {
    for (const CaseDecay decay : {CaseDecay::none, CaseDecay::head, CaseDecay::token, CaseDecay::channel}) {
        LinearCase c{.normalise = true, .decay = decay, .state = true, .queries = 4500, .keys = 4500};
        c.dim = 9;
        c.value_dim = 6;
        c.decay_scale = 0.01;
        SCOPED_TRACE(c.name());
        LinearInputs inputs(c, DType::float32, 73);
        inputs.options.key_lengths = {4460};
        expect_gradients(inputs, 2e-5, Algorithm::automatic);
    }
}

// Longer than the segments of the delta rule's gradients, with queries behind the last key.
TEST(LinearAttentionGradient, DeltaRuleBySegments) {
    for (const CaseDecay decay : {CaseDecay::none, CaseDecay::head, CaseDecay::channel}) {
        for (const std::int64_t keys : {kDeltaSegment, kDeltaSegment + 1, 2 * kDeltaSegment + 40}) {
            // Where keys end does not depend on the decay.
            if (decay != CaseDecay::none && keys <= 2 * kDeltaSegment) continue;
            LinearCase c{.map = FeatureMap::identity, .decay = decay, .delta = true, .state = true};
            c.queries = c.keys = 2 * kDeltaSegment + 40;
            c.dim = 12;
            c.value_dim = 8;
            c.decay_scale = 0.01;
            SCOPED_TRACE(c.name() + " of " + std::to_string(keys));
            LinearInputs inputs(c, DType::float32, 72);
            inputs.options.key_lengths = {keys};
            expect_gradients(inputs, 2e-5, Algorithm::automatic);
        }
    }
}

// Heads that share keys, entries of a batch with lengths of their own, and maps that the delta rule's keys go through.
TEST(LinearAttentionGradient, DeltaRuleOfGroupsAndLengths) {
    std::uint64_t seed = 80;
    for (const FeatureMap map : {FeatureMap::identity, FeatureMap::relu, FeatureMap::function}) {
        for (const CaseDecay decay : {CaseDecay::none, CaseDecay::head, CaseDecay::token, CaseDecay::channel}) {
            for (const bool state : {false, true}) {
                LinearCase c{.map = map, .decay = decay, .delta = true, .state = state, .batch = 3};
                c.heads = 6;
                c.kv_heads = 2;
                // Keys of softplus are longer than 1: few channels, and writes that shrink the state all the same.
                if (map == FeatureMap::function) c.dim = 2;
                SCOPED_TRACE(c.name());
                LinearInputs inputs(c, DType::float32, ++seed);
                inputs.options.key_lengths = {70, 33, 0};
                expect_gradients(inputs, 1e-5);
            }
        }
    }
}

// A token of beta 0 writes nothing, and has the gradient of what it would have written; one of 1 replaces what was
// there.
TEST(LinearAttentionGradient, DeltaRuleOfZeroAndOne) {
    for (const CaseDecay decay : {CaseDecay::none, CaseDecay::token, CaseDecay::channel}) {
        for (const int kind : {0, 1, 2}) {
            const LinearCase c{.map = FeatureMap::identity, .decay = decay, .delta = true, .state = true};
            SCOPED_TRACE(c.name() + " kind " + std::to_string(kind));
            LinearInputs inputs(c, DType::float32, 91);
            for (std::int64_t e = 0; e < inputs.beta.numel(); ++e) {
                inputs.beta.data<float>()[e] = kind < 2 ? static_cast<float>(kind) : static_cast<float>(e % 3) / 2.0F;
            }
            expect_gradients(inputs, 1e-5);
        }
    }
}

// Logarithms of decays from nothing to everything forgotten, within one chunk.
TEST(LinearAttentionGradient, ExtremeDecays) {
    constexpr float kValues[] = {0.0F, -1e-6F, -100.0F, -std::numeric_limits<float>::infinity()};
    for (const CaseDecay decay : {CaseDecay::head, CaseDecay::token, CaseDecay::channel}) {
        for (const bool delta : {false, true}) {
            for (const std::int64_t kind : {0, 1, 2, 3, 4}) {
                const LinearCase c{.map = FeatureMap::identity, .decay = decay, .delta = delta, .state = true};
                SCOPED_TRACE(c.name() + " kind " + std::to_string(kind));
                LinearInputs inputs(c, DType::float32, 92);
                for (std::int64_t e = 0; e < inputs.decay.numel(); ++e) {
                    inputs.decay.data<float>()[e] = kValues[kind < 4 ? kind : (e * 2654435761 >> 7) % 4];
                }
                expect_gradients(inputs, 1e-5);
                // What follows a token that forgets everything does not depend on how much it forgets.
                if (decay == CaseDecay::head) continue;
                const Tensor gradient = inputs.backward(inputs.forward()).decay;
                for (std::int64_t e = 0; e < gradient.numel(); ++e) {
                    if (std::isinf(inputs.decay.data<float>()[e])) {
                        ASSERT_EQ(gradient.data<float>()[e], 0.0F);
                    }
                }
            }
        }
    }
}

// Keys that no head of queries reads.
TEST(LinearAttentionGradient, NoHeadsOfQueries) {
    for (const bool causal : {false, true}) {
        for (const bool delta : {false, true}) {
            if (delta && !causal) continue;
            const Tensor q = zeros({2, 0, 5, 8});
            const Tensor k = randn({2, 1, 5, 8}, {.seed = 1});
            const Tensor beta = full({2, 1, 5}, 0.5);
            LinearAttentionOptions options{.feature_map = FeatureMap::identity, .causal = causal};
            if (delta) options.beta = beta;
            LinearAttentionResult result;
            result.output = linear_attention(q, k, k, options);
            EXPECT_EQ(result.output.numel(), 0);
            const LinearAttentionGradients found = linear_attention_backward(q, q, k, k, result, options);
            EXPECT_TRUE(same_bits(found.key, zeros({2, 1, 5, 8})));
            EXPECT_TRUE(same_bits(found.value, zeros({2, 1, 5, 8})));
        }
    }
}

bool has_nan(const Tensor& tensor, std::int64_t head, std::int64_t row) {
    for (std::int64_t e = 0; e < tensor.size(-1); ++e) {
        if (std::isnan(tensor.item({0, head, row, e}))) return true;
    }
    return false;
}

// NaN in a row of the output's gradient reaches its query, and keys and values up to it, but none behind; in a value,
// queries and keys from it on, but none before.
TEST(LinearAttentionGradient, NanStaysOnItsSide) {
    constexpr std::int64_t kRow = 39;
    constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
    for (const LinearCase& c : linear_cases()) {
        if (!c.causal || c.state) continue;
        SCOPED_TRACE(c.name());
        LinearInputs late(c, DType::float32, 93);
        late.grad_output.at<float>({0, 0, kRow, 3}) = kNan;
        LinearInputs early(c, DType::float32, 93);
        early.value.at<float>({0, 0, kRow, 3}) = kNan;
        for (const Isa isa : available_isas()) {
            const IsaOverride forced(isa);
            const LinearAttentionGradients of_late = late.backward(late.forward());
            const LinearAttentionGradients of_early = early.backward(early.forward());
            for (std::int64_t t = 0; t < c.keys; ++t) {
                EXPECT_EQ(has_nan(of_late.query, 0, t), t == kRow) << t;
                EXPECT_FALSE(has_nan(of_late.query, 1, t)) << t;
                EXPECT_EQ(has_nan(of_late.value, 0, t), t <= kRow) << t;
                EXPECT_EQ(has_nan(of_late.key, 0, t), t <= kRow) << t;
                EXPECT_EQ(has_nan(of_early.query, 0, t), t >= kRow) << t;
                if (c.normalise) continue;  // rows of outputs that are NaN reach all keys before them
                EXPECT_EQ(has_nan(of_early.key, 0, t), c.delta ? t >= kRow : t == kRow) << t;
                EXPECT_FALSE(has_nan(of_early.value, 0, t)) << t;
            }
        }
    }
}

// Infinity in one column of a row of the output's gradient: all others are as the reference has them, in whichever
// block of columns they lie.
TEST(LinearAttentionGradient, InfinityLeavesOtherColumns) {
    LinearCase c{.map = FeatureMap::identity, .heads = 2, .kv_heads = 2, .queries = 40, .keys = 40};
    c.dim = 20;
    c.value_dim = 70;
    LinearInputs inputs(c, DType::float32, 94);
    inputs.grad_output.at<float>({0, 0, 30, 3}) = std::numeric_limits<float>::infinity();
    for (const Isa isa : available_isas()) {
        const IsaOverride forced(isa);
        const LinearAttentionResult result = inputs.forward();
        const Tensor found = inputs.backward(result).value;
        const Tensor want = inputs.backward(result, Algorithm::reference).value;
        for (std::int64_t t = 0; t < c.keys; ++t) {
            for (std::int64_t e = 0; e < c.value_dim; ++e) {
                const double x = want.item({0, 0, t, e});
                if (e == 3 && t <= 30) {
                    EXPECT_FALSE(std::isfinite(found.item({0, 0, t, e}))) << t;
                } else {
                    EXPECT_NEAR(found.item({0, 0, t, e}), x, 1e-4 * (1 + std::fabs(x))) << t << " " << e;
                }
            }
        }
    }
}

}  // namespace
}  // namespace attend::testing
