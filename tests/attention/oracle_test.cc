// The blocked path against the scalar oracle, forward and backward, in every dtype; tolerances: docs/tolerances.md.
#include "cases.h"

#include "tests/support/compare.h"

#include <attend/core/error.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace attend::testing {
namespace {

class Oracle : public ::testing::TestWithParam<Case> {};

constexpr double kFloat32 = 5e-6;  // float accumulation, see docs/tolerances.md
constexpr double kFloat32Grad = 2e-5;
constexpr double kFloat64 = 1e-12;

/// sum_j w_ij |v_j|: what rounding errors of an output are relative to, since its terms may cancel.
Tensor output_magnitude(const Problem& problem) {
    Problem absolute = problem;
    absolute.value = problem.value.to(DType::float64);
    for (std::int64_t i = 0; i < absolute.value.numel(); ++i) {
        absolute.value.data<double>()[i] = std::fabs(absolute.value.data<double>()[i]);
    }
    absolute.query = problem.query.to(DType::float64);
    absolute.key = problem.key.to(DType::float64);
    return std::move(absolute.forward(Algorithm::reference).output);
}

TEST_P(Oracle, ForwardAndBackwardFloat64) {
    const Problem p(GetParam(), DType::float64, 11);
    const AttentionResult want = p.forward(Algorithm::reference);
    const AttentionResult found = p.forward(Algorithm::flash);
    EXPECT_LE(row_error(found.output, want.output), kFloat64);
    EXPECT_LE(row_error(found.weights, want.weights), kFloat64);
    EXPECT_LE(row_error(found.log_sum_exp, want.log_sum_exp), kFloat64);
    const AttentionGradients grad_want = p.backward(want, Algorithm::reference);
    const AttentionGradients grad = p.backward(found, Algorithm::flash);
    EXPECT_LE(row_error(grad.query, grad_want.query), kFloat64);
    EXPECT_LE(row_error(grad.key, grad_want.key), kFloat64);
    EXPECT_LE(row_error(grad.value, grad_want.value), kFloat64);
    // A bias that every score shares has a gradient that cancels to zero; what is left is measured against its
    // summands.
    if (p.description.bias.rank() > 0 && p.description.bias.end()[-1] > 1) {
        EXPECT_LE(row_error(grad.bias, grad_want.bias), kFloat64);
    }
}

TEST_P(Oracle, ForwardAndBackwardFloat32) {
    const Problem p(GetParam(), DType::float32, 12);
    const AttentionResult want = p.forward(Algorithm::reference);
    const AttentionResult found = p.forward(Algorithm::flash);
    EXPECT_LE(row_error(found.output, want.output, output_magnitude(p)), kFloat32);
    EXPECT_LE(row_error(found.weights, want.weights), kFloat32);
    EXPECT_LE(row_error(found.log_sum_exp, want.log_sum_exp), kFloat32);
    const AttentionGradients grad_want = p.backward(want, Algorithm::reference);
    const AttentionGradients grad = p.backward(found, Algorithm::flash);
    EXPECT_LE(row_error(grad.query, grad_want.query), kFloat32Grad);
    EXPECT_LE(row_error(grad.key, grad_want.key), kFloat32Grad);
    EXPECT_LE(row_error(grad.value, grad_want.value), kFloat32Grad);
}

// A 16-bit result is the exact one for the same inputs, rounded once: half a unit in the last place of the row's
// largest element, and as much again for arithmetic in float.
TEST_P(Oracle, SixteenBit) {
    for (const auto& [dtype, unit] : {std::pair(DType::bfloat16, 0x1p-8), std::pair(DType::float16, 0x1p-11)}) {
        const Problem p(GetParam(), dtype, 13);
        Problem exact(GetParam(), DType::float64, 13);
        exact.query = p.query.to(DType::float64);
        exact.key = p.key.to(DType::float64);
        exact.value = p.value.to(DType::float64);
        exact.grad_output = p.grad_output.to(DType::float64);
        exact.bias = p.bias.to(DType::float64);
        const AttentionResult want = exact.forward(Algorithm::reference);
        const AttentionGradients grad_want = exact.backward(want, Algorithm::reference);
        const Tensor magnitude = output_magnitude(exact);
        for (const Algorithm algorithm : {Algorithm::reference, Algorithm::flash}) {
            const AttentionResult found = p.forward(algorithm);
            EXPECT_LE(row_error(found.output, want.output, magnitude), 2 * unit);
            EXPECT_LE(row_error(found.weights, want.weights), 2 * unit);
            EXPECT_LE(row_error(found.log_sum_exp, want.log_sum_exp), dtype == DType::bfloat16 ? 4e-4 : 1e-6);
            const AttentionGradients grad = p.backward(found, algorithm);
            EXPECT_LE(row_error(grad.query, grad_want.query), 2 * unit);
            EXPECT_LE(row_error(grad.key, grad_want.key), 2 * unit);
            EXPECT_LE(row_error(grad.value, grad_want.value), 2 * unit);
        }
    }
}

std::vector<Case> all_cases() {
    std::vector<Case> cases = option_cases();
    const std::vector<Case> shapes = shape_cases();
    cases.insert(cases.end(), shapes.begin(), shapes.end());
    return cases;
}

INSTANTIATE_TEST_SUITE_P(Cases, Oracle, ::testing::ValuesIn(all_cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace attend::testing
