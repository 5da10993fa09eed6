// Linear attention against the quadratic form (the delta rule: the recurrence) in double, in every dtype and on every
// instruction set. Tolerances: docs/tolerances.md.
#include "tests/attention/linear_cases.h"
#include "tests/support/compare.h"

#include <attend/kernels/cpu/isa.h>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>

namespace attend::testing {
namespace {

using kernels::cpu::available_isas;
using kernels::cpu::Isa;
using kernels::cpu::IsaOverride;

constexpr double kFloat64 = 1e-12;
constexpr double kFloat32 = 5e-6;  // float accumulation, see docs/tolerances.md

void expect_equal(const LinearInputs& inputs, const LinearAttentionResult& found, const LinearAttentionResult& want,
                  double bound) {
    EXPECT_LE(row_error(found.output, want.output, magnitude_of(inputs)), bound);
    if (want.state.numel() == 0) return;
    EXPECT_LE(row_error(found.state, want.state), 10.0 * bound);  // judged by itself, though it may cancel
    EXPECT_LE(row_error(found.normaliser, want.normaliser), bound);
    EXPECT_LE(row_error(found.denominator, want.denominator), 10.0 * bound);
}

TEST(LinearAttentionOracle, EveryCombination) {
    for (const LinearCase& c : linear_cases()) {
        SCOPED_TRACE(c.name());
        const LinearInputs wide(c, DType::float64, 11);
        expect_equal(wide, wide.forward(), wide.forward(Algorithm::reference), kFloat64);
        const LinearInputs inputs(c, DType::float32, 12);
        const LinearAttentionResult want = inputs.forward(Algorithm::reference);
        for (const Isa isa : available_isas()) {
            SCOPED_TRACE(name_of(isa));
            const IsaOverride forced(isa);
            expect_equal(inputs, inputs.forward(), want, kFloat32);
        }
    }
}

// A 16-bit result is the exact one for the same inputs, rounded once: half a unit in the last place of the row's
// largest element, and as much again for arithmetic in float (for bfloat16 in pairs, three roundings of operands).
TEST(LinearAttentionOracle, SixteenBit) {
    for (const auto& [dtype, unit] : {std::pair(DType::bfloat16, 0x1p-8), std::pair(DType::float16, 0x1p-11)}) {
        for (const LinearCase& c : linear_cases()) {
            SCOPED_TRACE(c.name());
            const LinearInputs inputs(c, dtype, 13);
            const Tensor want = inputs.forward(Algorithm::reference).output;
            for (const Isa isa : available_isas()) {
                SCOPED_TRACE(name_of(isa));
                const IsaOverride forced(isa);
                EXPECT_LE(row_error(inputs.forward().output, want, magnitude_of(inputs)), unit);
            }
        }
    }
}

TEST(LinearAttentionOracle, OddSizes) {
    const std::int64_t lengths[] = {0, 1, 2, 31, 32, 33, 65};
    const std::pair<std::int64_t, std::int64_t> dims[] = {{1, 1},   {3, 70}, {16, 16}, {33, 17},
                                                          {64, 64}, {70, 5}, {48, 33}};
    std::uint64_t seed = 100;
    for (const std::int64_t length : lengths) {
        for (const auto& [dim, value_dim] : dims) {
            for (const CaseDecay decay : {CaseDecay::none, CaseDecay::token, CaseDecay::channel}) {
                for (const bool delta : {false, true}) {
                    LinearCase c{.decay = decay, .delta = delta, .queries = length, .keys = length};
                    c.map = delta ? FeatureMap::identity : FeatureMap::elu_plus_one;
                    c.normalise = !delta;
                    c.dim = dim;
                    c.value_dim = value_dim;
                    SCOPED_TRACE(c.name());
                    const LinearInputs inputs(c, DType::float32, ++seed);
                    expect_equal(inputs, inputs.forward(), inputs.forward(Algorithm::reference), kFloat32);
                }
            }
            LinearCase c{.normalise = true, .causal = false, .queries = 65 - length, .keys = length};
            c.dim = dim;
            c.value_dim = value_dim;
            for (const Isa isa : available_isas()) {
                const IsaOverride forced(isa);
                SCOPED_TRACE(c.name());
                const LinearInputs inputs(c, DType::float32, ++seed);
                expect_equal(inputs, inputs.forward(), inputs.forward(Algorithm::reference), kFloat32);
            }
        }
    }
}

// Longer than the groups of tokens whose states are summed in order.
TEST(LinearAttentionOracle, LongSequences) {
    for (const CaseDecay decay : {CaseDecay::none, CaseDecay::token, CaseDecay::channel}) {
        const LinearCase c{.decay = decay, .heads = 1, .queries = 4500, .keys = 4500, .dim = 5, .value_dim = 6};
        SCOPED_TRACE(c.name());
        const LinearInputs inputs(c, DType::float32, 31);
        expect_equal(inputs, inputs.forward(), inputs.forward(Algorithm::reference), kFloat32);
    }
    const LinearCase c{.causal = false, .heads = 1, .queries = 100, .keys = 9000, .dim = 5, .value_dim = 6};
    const LinearInputs inputs(c, DType::float32, 32);
    expect_equal(inputs, inputs.forward(), inputs.forward(Algorithm::reference), kFloat32);
}

// Logarithms of decays from nothing to everything forgotten, within one chunk: no ratio of decays may overflow.
TEST(LinearAttentionOracle, ExtremeDecays) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    for (const CaseDecay decay : {CaseDecay::head, CaseDecay::token, CaseDecay::channel}) {
        for (const bool delta : {false, true}) {
            for (const int kind : {0, 1, 2, 3, 4}) {
                LinearCase c{.map = FeatureMap::identity, .decay = decay, .delta = delta, .state = true};
                LinearInputs inputs(c, DType::float32, 41);
                for (std::int64_t e = 0; e < inputs.decay.numel(); ++e) {
                    const double values[] = {0.0, -1e-6, -100.0, -kInfinity};
                    inputs.decay.data<float>()[e] =
                        static_cast<float>(values[kind < 4 ? kind : (e * 2654435761U >> 7U) % 4]);
                }
                SCOPED_TRACE(c.name() + " kind " + std::to_string(kind));
                const LinearAttentionResult want = inputs.forward(Algorithm::reference);
                for (const Isa isa : available_isas()) {
                    const IsaOverride forced(isa);
                    expect_equal(inputs, inputs.forward(), want, kFloat32);
                }
            }
        }
    }
}

}  // namespace
}  // namespace attend::testing
