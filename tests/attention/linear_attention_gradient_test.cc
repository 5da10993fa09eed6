// Gradients of linear attention: finite differences of the quadratic form in double, and the fast paths against the
// token by token one.
#include "tests/attention/linear_cases.h"
#include "tests/support/compare.h"

#include <attend/kernels/cpu/isa.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace attend::testing {
namespace {

using kernels::cpu::available_isas;
using kernels::cpu::Isa;
using kernels::cpu::IsaOverride;

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

/// Relative to the tensor's largest element, and at least 1, what a gradient of these inputs is made of: it is a sum
/// over tokens that may cancel (that of a lone normalised token vanishes).
double error_of(const Tensor& found, const Tensor& want) {
    if (!(found.shape() == want.shape())) return std::numeric_limits<double>::infinity();
    const std::vector<double> a = values(found);
    const std::vector<double> b = values(want);
    double largest = 1.0;
    double error = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        largest = std::max(largest, std::fabs(b[i]));
        error = std::max(error, std::isnan(a[i]) ? std::numeric_limits<double>::infinity() : std::fabs(a[i] - b[i]));
    }
    return error / largest;
}

void expect_gradients(const LinearInputs& inputs, double bound) {
    const LinearAttentionResult result = inputs.forward(Algorithm::reference);
    const LinearAttentionGradients want = inputs.backward(result, Algorithm::reference);
    for (const Isa isa : available_isas()) {
        SCOPED_TRACE(name_of(isa));
        const IsaOverride forced(isa);
        const LinearAttentionGradients found = inputs.backward(inputs.forward());
        EXPECT_LE(error_of(found.query, want.query), bound);
        EXPECT_LE(error_of(found.key, want.key), bound);
        EXPECT_LE(error_of(found.value, want.value), bound);
        EXPECT_LE(error_of(found.decay, want.decay), bound);
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
                for (const bool causal : {true, false}) {
                    if (!causal && decay != CaseDecay::none) continue;
                    LinearCase c{.normalise = true, .causal = causal, .decay = decay, .queries = length};
                    c.keys = causal ? length : 65 - length;
                    c.dim = dim;
                    c.value_dim = value_dim;
                    SCOPED_TRACE(c.name());
                    expect_gradients(LinearInputs(c, DType::float32, ++seed), 1e-5);
                }
            }
        }
    }
}

TEST(LinearAttentionGradient, LongSequences) {
    for (const CaseDecay decay : {CaseDecay::none, CaseDecay::token, CaseDecay::channel}) {
        const LinearCase c{.decay = decay, .heads = 1, .queries = 1100, .keys = 1100, .dim = 16, .value_dim = 16};
        SCOPED_TRACE(c.name());
        expect_gradients(LinearInputs(c, DType::float32, 71), 2e-5);
    }
}

}  // namespace
}  // namespace attend::testing
