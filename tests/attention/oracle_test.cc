// The plain path against the scalar oracle, forward and backward, in every dtype; tolerances: docs/tolerances.md.
#include "cases.h"
#include "magnitude.h"

#include "tests/support/compare.h"

#include <attend/core/error.h>
#include <attend/kernels/cpu/isa.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace attend::testing {
namespace {

using kernels::cpu::available_isas;
using kernels::cpu::Isa;
using kernels::cpu::IsaOverride;

class Oracle : public ::testing::TestWithParam<Case> {};

constexpr double kFloat32 = 5e-6;  // float accumulation, see docs/tolerances.md
constexpr double kFloat64 = 1e-12;

Magnitudes magnitudes_of(const Problem& problem, const TensorView& weights) {
    const double scale =
        problem.description.scale.value_or(1.0 / std::sqrt(std::max(1.0, static_cast<double>(problem.description.d))));
    return magnitudes(problem.query, problem.key, problem.value, problem.grad_output, weights, scale);
}

/// Of the bias's gradient; 0 without a bias.
double bias_error(const Problem& problem, const AttentionGradients& found, const AttentionGradients& want,
                  const Magnitudes& magnitude) {
    if (problem.description.bias.rank() == 0) return 0.0;
    return row_error(found.bias, want.bias, summed_like_bias(magnitude.scores, problem.description.bias));
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
    EXPECT_LE(bias_error(p, grad, grad_want, magnitudes_of(p, want.weights)), kFloat64);
}

TEST_P(Oracle, ForwardAndBackwardFloat32) {
    const Problem p(GetParam(), DType::float32, 12);
    const AttentionResult want = p.forward(Algorithm::reference);
    const Magnitudes magnitude = magnitudes_of(p, want.weights);
    const AttentionGradients grad_want = p.backward(want, Algorithm::reference);
    for (const Isa isa : available_isas()) {
        SCOPED_TRACE(name_of(isa));
        const IsaOverride forced(isa);
        const AttentionResult found = p.forward(Algorithm::flash);
        EXPECT_LE(row_error(found.output, want.output, magnitude.output), kFloat32);
        EXPECT_LE(row_error(found.weights, want.weights), kFloat32);
        EXPECT_LE(row_error(found.log_sum_exp, want.log_sum_exp), kFloat32);
        const AttentionGradients grad = p.backward(found, Algorithm::flash);
        EXPECT_LE(row_error(grad.query, grad_want.query, magnitude.query), kFloat32);
        EXPECT_LE(row_error(grad.key, grad_want.key, magnitude.key), kFloat32);
        EXPECT_LE(row_error(grad.value, grad_want.value, magnitude.value), kFloat32);
        EXPECT_LE(bias_error(p, grad, grad_want, magnitude), kFloat32);
    }
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
        const Magnitudes magnitude = magnitudes_of(exact, want.weights);
        std::vector<Isa> isas = available_isas();
        isas.push_back(Isa::scalar);  // once more for the oracle
        for (std::size_t i = 0; i < isas.size(); ++i) {
            const Algorithm algorithm = i + 1 == isas.size() ? Algorithm::reference : Algorithm::flash;
            SCOPED_TRACE(name_of(isas[i]));
            const IsaOverride forced(isas[i]);
            const AttentionResult found = p.forward(algorithm);
            EXPECT_LE(row_error(found.output, want.output, magnitude.output), 2 * unit);
            EXPECT_LE(row_error(found.weights, want.weights), 2 * unit);
            EXPECT_LE(row_error(found.log_sum_exp, want.log_sum_exp), dtype == DType::bfloat16 ? 4e-4 : 1e-6);
            const AttentionGradients grad = p.backward(found, algorithm);
            EXPECT_LE(row_error(grad.query, grad_want.query, magnitude.query), 2 * unit);
            EXPECT_LE(row_error(grad.key, grad_want.key, magnitude.key), 2 * unit);
            EXPECT_LE(row_error(grad.value, grad_want.value, magnitude.value), 2 * unit);
            EXPECT_LE(bias_error(p, grad, grad_want, magnitude), 2 * unit);
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
