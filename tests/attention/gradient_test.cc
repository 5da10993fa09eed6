// Gradients against central differences of the forward pass, in double.
#include "cases.h"

#include "tests/support/compare.h"

#include <gtest/gtest.h>

#include <cmath>

namespace attend::testing {
namespace {

/// sum(grad_output * output), the function whose gradient backward takes.
double loss(const Problem& p, Algorithm algorithm) {
    const std::vector<double> output = values(p.forward(algorithm).output);
    const std::vector<double> grad = values(p.grad_output);
    double sum = 0.0;
    for (std::size_t i = 0; i < output.size(); ++i) sum += output[i] * grad[i];
    return sum;
}

/// Compares some elements of `gradient` with (f(x + h) - f(x - h)) / 2h; its error is h^2 f''' / 6 and rounding / h.
void check(Problem& p, Tensor Problem::*input, const Tensor& gradient, Algorithm algorithm) {
    constexpr double kStep = 1e-5;
    Tensor& x = p.*input;
    const std::int64_t step = std::max<std::int64_t>(1, x.numel() / 17);
    for (std::int64_t e = 0; e < x.numel(); e += step) {
        double& element = x.data<double>()[e];
        const double at = element;
        element = at + kStep;
        const double above = loss(p, algorithm);
        element = at - kStep;
        const double below = loss(p, algorithm);
        element = at;
        EXPECT_NEAR(gradient.data<double>()[e], (above - below) / (2 * kStep), 1e-7 * (1.0 + std::fabs(above))) << e;
    }
}

class Gradient : public ::testing::TestWithParam<Case> {};

TEST_P(Gradient, EqualsCentralDifferences) {
    for (const Algorithm algorithm : {Algorithm::reference, Algorithm::flash}) {
        Problem p(GetParam(), DType::float64, 31);
        const AttentionGradients gradients = p.backward(p.forward(algorithm), algorithm);
        check(p, &Problem::query, gradients.query, algorithm);
        check(p, &Problem::key, gradients.key, algorithm);
        check(p, &Problem::value, gradients.value, algorithm);
        if (p.bias.numel() > 0) check(p, &Problem::bias, gradients.bias, algorithm);
    }
}

std::vector<Case> small_cases() {
    return {
        {.name = "plain", .batch = 1, .queries = 5, .keys = 7, .d = 4, .dv = 3},
        {.name = "grouped_causal",
         .batch = 1,
         .heads = 4,
         .queries = 5,
         .keys = 7,
         .d = 4,
         .dv = 3,
         .mask = Mask::causal_bottom_right()},
        {.name = "bias_broadcast", .queries = 5, .keys = 7, .d = 4, .dv = 3, .bias = {1, 2, 1, 7}},
        {.name = "bias_rows", .queries = 5, .keys = 7, .d = 4, .dv = 3, .bias = {5, 7}},
        {.name = "softcap_alibi",
         .queries = 5,
         .keys = 7,
         .d = 4,
         .dv = 3,
         .alibi = true,
         .scale = 0.7,
         .softcap = 1.5},
        {.name = "dropout_window",
         .queries = 9,
         .keys = 9,
         .d = 4,
         .dv = 3,
         .mask = Mask::window(2, 1),
         .dropout = 0.4},
        {.name = "everything",
         .heads = 4,
         .queries = 9,
         .keys = 11,
         .d = 4,
         .dv = 3,
         .mask = Mask::causal_bottom_right() & Mask::key_lengths({8, 11}),
         .boolean_mask = true,
         .bias = {1, 4, 9, 11},
         .alibi = true,
         .scale = -0.6,
         .softcap = 2.0,
         .dropout = 0.3},
    };
}

INSTANTIATE_TEST_SUITE_P(Cases, Gradient, ::testing::ValuesIn(small_cases()),
                         [](const auto& info) { return info.param.name; });

// auto [dq, dk, dv] takes the first three.
TEST(AttentionGradients, StructuredBindings) {
    const Tensor q = normal({1, 1, 2, 4}, 1);
    const AttentionResult y = attention(q, q, q);
    auto [dq, dk, dv] = attention_backward(ones_like(y.output), q, q, q, y);
    EXPECT_EQ(dq.shape(), q.shape());
    EXPECT_NEAR(dv.item({0, 0, 0, 0}) + dv.item({0, 0, 1, 0}), 2.0, 1e-6);
    EXPECT_EQ(dk.dtype(), DType::float32);
}

}  // namespace
}  // namespace attend::testing
