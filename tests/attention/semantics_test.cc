// docs/semantics: a test for each trap that libraries fell into.
#include "cases.h"

#include "tests/support/compare.h"

#include <attend/core/error.h>
#include <attend/core/philox.h>
#include <attend/core/threads.h>
#include <attend/kernels/cpu/isa.h>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace attend::testing {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

/// The oracle, or the fast path on one instruction set.
struct Implementation {
    Algorithm algorithm;
    kernels::cpu::Isa isa;
    operator Algorithm() const { return algorithm; }  // NOLINT(google-explicit-constructor)
};

std::vector<Implementation> implementations() {
    std::vector<Implementation> all = {{Algorithm::reference, kernels::cpu::Isa::scalar}};
    for (const kernels::cpu::Isa isa : kernels::cpu::available_isas()) all.push_back({Algorithm::flash, isa});
    return all;
}

/// Whatever holds, holds for each.
class Semantics : public ::testing::TestWithParam<Implementation> {
protected:
    AttentionResult run(const TensorView& q, const TensorView& k, const TensorView& v, AttentionOptions options = {}) {
        options.algorithm = GetParam();
        options.return_weights = true;
        return attention(q, k, v, options);
    }

private:
    kernels::cpu::IsaOverride isa_{GetParam().isa};
};

INSTANTIATE_TEST_SUITE_P(Algorithms, Semantics, ::testing::ValuesIn(implementations()), [](const auto& info) {
    return info.param.algorithm == Algorithm::reference ? std::string("reference")
                                                        : "flash_" + std::string(name_of(info.param.isa));
});

/// Which keys have weight, as "1" and "0" for each query, of a problem whose weights are otherwise uniform.
std::string pattern(Algorithm algorithm, std::int64_t queries, std::int64_t keys, const Mask& mask) {
    const Tensor q = zeros({1, 1, queries, 4});
    const Tensor k = zeros({1, 1, keys, 4});
    const Tensor v = zeros({1, 1, keys, 4});
    const AttentionResult y = attention(q, k, v, {.mask = mask, .return_weights = true, .algorithm = algorithm});
    const Tensor attended = attended_keys(q, k, {.mask = mask});
    EXPECT_TRUE(same_bits(attended, y.weights.to(DType::boolean)));
    std::string text;
    for (std::int64_t i = 0; i < queries; ++i) {
        if (i > 0) text += ' ';
        for (std::int64_t j = 0; j < keys; ++j) text += y.weights.at<float>({0, 0, i, j}) > 0 ? '1' : '0';
    }
    return text;
}

TEST_P(Semantics, CausalAlignmentIsExplicit) {
    EXPECT_EQ(pattern(GetParam(), 3, 3, Mask::causal()), "100 110 111");
    EXPECT_EQ(pattern(GetParam(), 2, 4, Mask::causal_top_left()), "1000 1100");
    EXPECT_EQ(pattern(GetParam(), 2, 4, Mask::causal_bottom_right()), "1110 1111");
    EXPECT_EQ(pattern(GetParam(), 4, 2, Mask::causal_bottom_right()), "00 00 10 11");
    EXPECT_EQ(pattern(GetParam(), 2, 4, Mask::causal(1)), "1100 1110");
    EXPECT_EQ(pattern(GetParam(), 2, 4, Mask::causal(-1)), "0000 1000");
    EXPECT_EQ(pattern(GetParam(), 2, 4, Mask::causal(std::int64_t{1} << 62)), "1111 1111");
    EXPECT_EQ(message_of<ShapeError>([&] { pattern(GetParam(), 2, 4, Mask::causal()); }),
              "[attention] expected as many keys as queries for Mask::causal(), found 4 and 2; say "
              "Mask::causal_top_left(), Mask::causal_bottom_right() or Mask::causal(offset)");
}

TEST_P(Semantics, WindowIsInclusiveAndTakesTheMasksOffset) {
    EXPECT_EQ(pattern(GetParam(), 4, 4, Mask::window(1, 0)), "1000 1100 0110 0011");
    EXPECT_EQ(pattern(GetParam(), 4, 4, Mask::window(0, 1)), "1100 0110 0011 0001");
    EXPECT_EQ(pattern(GetParam(), 4, 4, Mask::window({}, {})), "1111 1111 1111 1111");
    EXPECT_EQ(pattern(GetParam(), 2, 4, Mask::window(0, 0)), "0010 0001");
    EXPECT_EQ(pattern(GetParam(), 2, 4, Mask::window(0, 0).with_query_offset(1)), "0100 0010");
    EXPECT_EQ(pattern(GetParam(), 2, 4, Mask::window(1, {}) & Mask::causal_top_left()), "1000 1100");
    EXPECT_EQ(pattern(GetParam(), 2, 4, Mask::causal(2) & Mask::window(1, {})), "0110 0011");
    EXPECT_EQ(pattern(GetParam(), 2, 4, Mask::causal(2) & Mask::causal_top_left()), "1000 1100");
    EXPECT_THROW(Mask::window(-1, 0), ValueError);
}

TEST_P(Semantics, AQueryOffsetTakesThePlaceOfTheMasks) {
    for (const Mask& mask : {Mask::causal(), Mask::causal_top_left(), Mask::causal_bottom_right(), Mask::causal(-1)}) {
        EXPECT_EQ(pattern(GetParam(), 2, 4, mask.with_query_offset(1)), "1100 1110");
        EXPECT_EQ(pattern(GetParam(), 2, 4, mask.with_query_offset(0).with_query_offset(1)), "1100 1110");
    }
    EXPECT_EQ(pattern(GetParam(), 2, 4, Mask::window(0, 0).with_query_offset(3).with_query_offset(1)), "0100 0010");
    EXPECT_EQ(pattern(GetParam(), 2, 4, (Mask::causal_top_left() & Mask::window(1, 0)).with_query_offset(2)),
              "0110 0011");
}

// What a float cannot hold is not rounded to infinity or to "no cap" before 16-bit inputs are computed in float.
TEST_P(Semantics, ExtremeOptionsOf16BitInputs) {
    const Tensor q = normal({1, 2, 5, 8}, 1, DType::bfloat16);
    const Tensor k = normal({1, 2, 7, 8}, 2, DType::bfloat16);
    const Tensor bias = Tensor::from<double>({0.0, 1e300, 0.0, 0.0, 0.0, 0.0, 0.0});
    for (const AttentionOptions& options :
         {AttentionOptions{.softcap = 1e39}, AttentionOptions{.softcap = 1e-50}, AttentionOptions{.scale = 1e39},
          AttentionOptions{.scale = 1e-50}, AttentionOptions{.bias = bias.view()}}) {
        AttentionOptions exact = options;
        exact.algorithm = Algorithm::reference;
        EXPECT_LE(row_error(run(q, k, k, options).output, attention(q, k, k, exact).output), 0x1p-7);
    }
}

TEST_P(Semantics, KeyLengthsMoveTheBottomRightCorner) {
    EXPECT_EQ(pattern(GetParam(), 2, 4, Mask::key_lengths({3})), "1110 1110");
    EXPECT_EQ(pattern(GetParam(), 2, 4, Mask::key_lengths({3}) & Mask::causal_bottom_right()), "1100 1110");
    EXPECT_EQ(pattern(GetParam(), 2, 4, Mask::key_lengths({3}) & Mask::causal_top_left()), "1000 1100");
    EXPECT_EQ(pattern(GetParam(), 2, 4, Mask::key_lengths({0})), "0000 0000");
    EXPECT_EQ(pattern(GetParam(), 4, 4, Mask::packed({0, 1, 3}) & Mask::causal()), "1000 0100 0110 0000");
}

TEST_P(Semantics, BooleanMaskIsTrueForAttend) {
    const Tensor allowed = Tensor::from<bool>({true, false, true, false, false, false}, Shape{2, 3});
    EXPECT_EQ(pattern(GetParam(), 2, 3, Mask::boolean(allowed)), "101 000");
    EXPECT_EQ(
        pattern(GetParam(), 2, 3, Mask::boolean(allowed) & Mask::boolean(Tensor::from<bool>({false, true, true}))),
        "001 000");
    EXPECT_THROW(Mask::boolean(zeros({2, 3})), DTypeError);
}

TEST_P(Semantics, CloneOfAMaskKeepsItsTensors) {
    Mask kept;
    {
        Tensor allowed = Tensor::from<bool>({true, false, true, false, true, false}, Shape{2, 3});
        kept =
            (Mask::boolean(allowed) & Mask::boolean(Tensor::from<bool>({true, true, false})) & Mask::causal(1)).clone();
        allowed.view().fill(1.0);
    }
    EXPECT_EQ(pattern(GetParam(), 2, 3, kept), "100 010");
    // What is broadcast takes no memory.
    const bool yes = true;
    const std::int64_t most = std::int64_t{1} << 40U;
    EXPECT_NO_THROW(Mask::boolean(TensorView(&yes, DType::boolean, {1, 1, most, 7}, {0, 0, 0, 0})).clone());
    const TensorView row(&yes, DType::boolean, {2, 3}, {0, 0});
    EXPECT_EQ(pattern(GetParam(), 2, 3, Mask::boolean(row).clone()), "111 111");
}

// A row without keys: output 0, weights 0, log-sum-exp -inf, gradients 0.
TEST(AttendedKeys, AreWhatAttentionAttendsTo) {
    const Tensor q = zeros({2, 4, 9, 3});
    const Tensor k = zeros({2, 2, 12, 3});
    const Tensor allowed = random_mask({2, 1, 9, 12}, 4, 0.7);
    const Tensor row = random_mask({12}, 5, 0.7);
    const Mask padded = Mask::boolean(allowed) & Mask::boolean(row.view()) & Mask::key_lengths({12, 7});
    for (const Mask& mask : {Mask(), padded, padded & Mask::causal_bottom_right(), padded & Mask::window(2, 1)}) {
        const AttentionOptions options{.mask = mask, .return_weights = true};
        const Tensor attended = attended_keys(q, k, options);
        EXPECT_EQ(attended.shape(), (Shape{2, 4, 9, 12}));
        EXPECT_TRUE(same_bits(attended, attention(q, k, k, options).weights.to(DType::boolean)));
    }
    const Tensor packed_query = zeros({1, 2, 9, 3});
    const AttentionOptions packed{.mask = Mask::packed({0, 4, 4, 8}) & Mask::causal(), .return_weights = true};
    const Tensor weights = attention(packed_query, packed_query, packed_query, packed).weights;
    EXPECT_TRUE(same_bits(attended_keys(packed_query, packed_query, packed), weights.to(DType::boolean)));
    EXPECT_THROW(attended_keys(q, zeros({2, 3, 12, 3})), ShapeError);
}

TEST_P(Semantics, FullyMaskedRow) {
    const Tensor q = normal({1, 1, 3, 8}, 1);
    const Tensor k = normal({1, 1, 3, 8}, 2);
    const Tensor v = normal({1, 1, 3, 8}, 3);
    const Tensor allowed = Tensor::from<bool>({true, false, true}, Shape{3, 1});
    AttentionOptions options{.mask = Mask::boolean(allowed), .algorithm = GetParam()};
    const AttentionResult y = run(q, k, v, options);
    for (std::int64_t c = 0; c < 8; ++c) EXPECT_EQ(y.output.at<float>({0, 0, 1, c}), 0.0F);
    for (std::int64_t j = 0; j < 3; ++j) EXPECT_EQ(y.weights.at<float>({0, 0, 1, j}), 0.0F);
    EXPECT_EQ(y.log_sum_exp.at<float>({0, 0, 1}), -kInf);
    EXPECT_NE(y.output.at<float>({0, 0, 0, 0}), 0.0F);
    const AttentionGradients g = attention_backward(ones_like(y.output), q, k, v, y, options);
    for (std::int64_t c = 0; c < 8; ++c) EXPECT_EQ(g.query.at<float>({0, 0, 1, c}), 0.0F);
    // The masked query's rows play no part: the same keys' gradients without it.
    const AttentionOptions rest{.algorithm = GetParam()};
    Tensor q2({1, 1, 2, 8});
    q2.view().slice(2, 0, 1).copy_from(q.view().slice(2, 0, 1));
    q2.view().slice(2, 1, 2).copy_from(q.view().slice(2, 2, 3));
    const AttentionResult y2 = run(q2, k, v, rest);
    const AttentionGradients g2 = attention_backward(ones_like(y2.output), q2, k, v, y2, rest);
    EXPECT_LE(row_error(g.key, g2.key), 1e-6);
    EXPECT_LE(row_error(g.value, g2.value), 1e-6);
}

// A bias of -inf everywhere in a row is dead as well, without NaN.
TEST_P(Semantics, BiasOfMinusInfinity) {
    const Tensor q = normal({1, 1, 2, 8}, 1);
    const Tensor k = normal({1, 1, 2, 8}, 2);
    const Tensor bias = Tensor::from<float>({-kInf, -kInf, 0.0F, -kInf}, Shape{2, 2});
    const AttentionOptions options{.bias = bias, .algorithm = GetParam()};
    const AttentionResult y = run(q, k, k, options);
    EXPECT_EQ(y.output.at<float>({0, 0, 0, 0}), 0.0F);
    EXPECT_EQ(y.log_sum_exp.at<float>({0, 0, 0}), -kInf);
    EXPECT_EQ(y.weights.at<float>({0, 0, 1, 0}), 1.0F);
    EXPECT_EQ(y.weights.at<float>({0, 0, 1, 1}), 0.0F);
    EXPECT_EQ(y.output.at<float>({0, 0, 1, 3}), k.at<float>({0, 0, 0, 3}));
    const AttentionGradients g = attention_backward(ones_like(y.output), q, k, k, y, options);
    EXPECT_EQ(g.query.at<float>({0, 0, 0, 0}), 0.0F);
    EXPECT_EQ(g.bias.at<float>({0, 1}), 0.0F);
}

// Scores far below any finite stand-in for -inf are ordinary scores.
TEST_P(Semantics, NoFiniteStandInForMinusInfinity) {
    const Tensor q = full({1, 1, 1, 1}, 1.0);
    const Tensor k = Tensor::from<float>({-1e12F, -1e12F, 5.0F}, Shape{1, 1, 3, 1});
    const Tensor v = Tensor::from<float>({2.0F, 4.0F, 100.0F}, Shape{1, 1, 3, 1});
    const AttentionResult y =
        run(q, k, v, {.mask = Mask::boolean(Tensor::from<bool>({true, true, false})), .scale = 1.0});
    EXPECT_EQ(y.output.at<float>({0, 0, 0, 0}), 3.0F);
    EXPECT_EQ(y.weights.at<float>({0, 0, 0, 2}), 0.0F);
}

// A large number in place of -inf, also where it is all that a row has. Its weights are equal then, since no float
// tells its logits apart, and its gradients finite; those of other rows are the oracle's.
TEST_P(Semantics, ABiasThatStandsForAMask) {
    const std::int64_t length = 40;
    const std::int64_t padding = 3;
    const auto padded_rows = [&](Tensor tensor) {
        tensor.view().select(0, 1).slice(1, 0, padding).fill(0.0);
        return tensor;
    };
    const Tensor q = normal({2, 2, length, 8}, 1);
    const Tensor k = normal({2, 2, length, 8}, 2);
    const Tensor v = normal({2, 2, length, 8}, 3);
    const Tensor grad = normal({2, 2, length, 8}, 4);
    const auto gradients = [](const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& grad,
                              const TensorView& bias, Algorithm algorithm) {
        const AttentionOptions options{.bias = bias, .algorithm = algorithm};
        const AttentionResult y = attention(q, k, v, options);
        AttentionGradients found{Tensor(q.shape(), q.dtype()), Tensor(k.shape(), k.dtype()),
                                 Tensor(v.shape(), v.dtype()), Tensor()};
        // Without the bias's gradient, which would take all rows to the plain path.
        attention_backward_into({found.query.view(), found.key.view(), found.value.view(), {}}, grad, q, k, v, y.output,
                                y.log_sum_exp, options);
        return found;
    };
    for (const float mask : {-1e9F, -1e20F, -1e30F, std::numeric_limits<float>::lowest()}) {
        SCOPED_TRACE(mask);
        // Causal; the first keys of the second sequence are padding, and so are its first queries.
        Tensor bias = zeros({2, 1, length, length});
        Tensor equal = zeros({2, 1, length, length});
        for (Tensor* each : {&bias, &equal}) {
            for (std::int64_t i = 0; i + 1 < length; ++i) each->view().select(2, i).slice(2, i + 1, length).fill(mask);
            each->view().select(0, 1).slice(2, 0, padding).fill(mask);
        }
        equal.view().select(0, 1).slice(1, 0, padding).fill(0.0);

        const Tensor no_padding = padded_rows(grad.view().clone());
        const AttentionGradients found = gradients(q, k, v, no_padding, bias, GetParam());
        const AttentionGradients want = gradients(q, k, v, no_padding, bias, Algorithm::reference);
        EXPECT_LE(row_error(found.query, want.query), 1e-4);
        EXPECT_LE(row_error(found.key, want.key), 1e-4);
        EXPECT_LE(row_error(found.value, want.value), 1e-4);

        // Rows of padding, too, have the gradients of their logits in double.
        const AttentionGradients all = gradients(q, k, v, grad, bias, GetParam());
        const AttentionGradients all_want = gradients(q, k, v, grad, bias, Algorithm::reference);
        EXPECT_LE(row_error(all.query, all_want.query), 1e-4);
        EXPECT_LE(row_error(all.key, all_want.key), 1e-4);
        EXPECT_LE(row_error(all.value, all_want.value), 1e-4);

        // Of values, whose gradients are the weights of padding as well: equal, as of queries of 0.
        if (mask > -1e17F) continue;
        EXPECT_LE(row_error(gradients(q, k, v, grad, bias, GetParam()).value,
                            gradients(padded_rows(q.view().clone()), k, v, grad, equal, Algorithm::reference).value),
                  1e-4);
    }
}

// The lowest float of all is a number, and a row of it has the mean of its values.
TEST_P(Semantics, TheLowestFloatAsBiasIsANumber) {
    for (const std::int64_t queries : {1, 9}) {
        const Tensor q = normal({1, 2, queries, 8}, 1);
        const Tensor k = normal({1, 2, 7, 8}, 2);
        const Tensor v = normal({1, 2, 7, 8}, 3);
        for (const float value : {std::numeric_limits<float>::lowest(), std::numeric_limits<float>::max()}) {
            const Tensor bias = full({1, 1, queries, 7}, value);
            const AttentionResult y = run(q, k, v, {.bias = bias});
            EXPECT_LE(row_error(y.weights, full({1, 2, queries, 7}, 1.0 / 7.0)), 1e-6);
            EXPECT_LE(row_error(y.output, attention(q, k, v, {.bias = bias, .algorithm = Algorithm::reference}).output),
                      1e-6);
        }
    }
}

// NaN and Inf in an attended key or value reach the rows that attend to it and no other.
TEST_P(Semantics, NaNReachesExactlyTheRowsThatAttend) {
    for (const float evil : {kNaN, kInf}) {
        for (const bool in_key : {true, false}) {
            const Tensor q = full({1, 1, 70, 4}, 0.5);
            Tensor k = normal({1, 1, 70, 4}, 2);
            Tensor v = normal({1, 1, 70, 4}, 3);
            (in_key ? k : v).at<float>({0, 0, 66, 1}) = evil;
            const AttentionResult y = run(q, k, v, {.mask = Mask::causal()});
            for (std::int64_t i = 0; i < 70; ++i) {
                EXPECT_EQ(std::isfinite(y.output.at<float>({0, 0, i, 1})), i < 66) << i;
            }
        }
    }
    Tensor q = normal({1, 1, 4, 4}, 1);
    q.at<float>({0, 0, 2, 0}) = kNaN;
    const AttentionResult y = run(q, normal({1, 1, 9, 4}, 2), normal({1, 1, 9, 4}, 3));
    for (std::int64_t i = 0; i < 4; ++i) EXPECT_EQ(std::isnan(y.output.at<float>({0, 0, i, 0})), i == 2);
}

// What a mask hides may hold NaN: not even its gradient is touched.
TEST_P(Semantics, MaskedKeysAndValuesAreNeverRead) {
    for (const Case& c : option_cases()) {
        if (c.name.find("key_lengths") == std::string::npos) continue;
        Problem clean(c, DType::float32, 5);
        Problem poisoned(c, DType::float32, 5);
        for (const auto& [entry, length] : {std::pair<std::int64_t, std::int64_t>{0, 29}, {1, 50}}) {
            for (Tensor* tensor : {&poisoned.key, &poisoned.value}) {
                tensor->view().select(0, entry).slice(1, length, c.keys).fill(kNaN);
            }
        }
        const AttentionResult want = clean.forward(GetParam());
        const AttentionResult found = poisoned.forward(GetParam());
        EXPECT_TRUE(same_bits(found.output, want.output)) << c.name;
        EXPECT_TRUE(same_bits(found.weights, want.weights)) << c.name;
        const AttentionGradients grad_want = clean.backward(want, GetParam());
        const AttentionGradients grad = poisoned.backward(found, GetParam());
        EXPECT_TRUE(same_bits(grad.query, grad_want.query)) << c.name;
        EXPECT_TRUE(same_bits(grad.key, grad_want.key)) << c.name;
        EXPECT_TRUE(same_bits(grad.value, grad_want.value)) << c.name;
    }
}

TEST_P(Semantics, KeysHiddenByABooleanMaskMayHoldNaN) {
    const Tensor q = normal({1, 2, 40, 8}, 1);
    Tensor k = normal({1, 2, 90, 8}, 2);
    Tensor v = normal({1, 2, 90, 8}, 3);
    Tensor allowed = full({90}, 1.0, DType::boolean);
    for (const std::int64_t hidden : {0, 17, 64, 89}) allowed.at<bool>({hidden}) = false;
    const AttentionOptions options{.mask = Mask::boolean(allowed), .algorithm = GetParam()};
    const AttentionResult want = run(q, k, v, options);
    const AttentionGradients grad_want = attention_backward(ones_like(want.output), q, k, v, want, options);
    for (const std::int64_t hidden : {0, 17, 64, 89}) {
        k.view().slice(2, hidden, hidden + 1).fill(kNaN);
        v.view().slice(2, hidden, hidden + 1).fill(kNaN);
    }
    const AttentionResult found = run(q, k, v, options);
    EXPECT_TRUE(same_bits(found.output, want.output));
    EXPECT_TRUE(same_bits(found.weights, want.weights));
    const AttentionGradients grad = attention_backward(ones_like(found.output), q, k, v, found, options);
    EXPECT_TRUE(same_bits(grad.query, grad_want.query));
    EXPECT_TRUE(same_bits(grad.key, grad_want.key));
    EXPECT_TRUE(same_bits(grad.value, grad_want.value));
}

TEST_P(Semantics, ScaleOfZeroIsZeroAndDefaultIsOneOverRoot) {
    const Tensor q = normal({1, 1, 3, 16}, 1);
    const Tensor k = normal({1, 1, 5, 16}, 2);
    const AttentionResult uniform = run(q, k, k, {.scale = 0.0});
    for (std::int64_t j = 0; j < 5; ++j) EXPECT_FLOAT_EQ(uniform.weights.at<float>({0, 0, 1, j}), 0.2F);
    EXPECT_TRUE(same_bits(run(q, k, k).output, run(q, k, k, {.scale = 0.25}).output));
}

// logits = cap(scale q.k) + bias - slope |i + offset - j|, in this order.
TEST_P(Semantics, OrderOfSoftCapBiasAndAlibi) {
    const Tensor q = full({1, 1, 1, 1}, 2.0, DType::float64);
    const Tensor k = Tensor::from<double>({3.0, -1.0}, Shape{1, 1, 2, 1});
    const Tensor bias = Tensor::from<double>({0.5, -0.25});
    const Tensor slopes = Tensor::from<float>({0.125F});
    const AttentionResult y = run(q, k, k,
                                  {.mask = Mask::none().with_query_offset(4),
                                   .bias = bias,
                                   .alibi_slopes = slopes,
                                   .scale = 0.7,
                                   .softcap = 1.5});
    const double a = 1.5 * std::tanh(0.7 * 6.0 / 1.5) + 0.5 - 0.125 * 4;
    const double b = 1.5 * std::tanh(0.7 * -2.0 / 1.5) - 0.25 - 0.125 * 3;
    EXPECT_NEAR(y.weights.at<double>({0, 0, 0, 0}), 1.0 / (1.0 + std::exp(b - a)), 1e-15);
    EXPECT_NEAR(y.log_sum_exp.at<double>({0, 0, 0}), std::log(std::exp(a) + std::exp(b)), 1e-15);
}

TEST_P(Semantics, LogSumExpIsNaturalAndFloat32) {
    const AttentionResult y = run(zeros({1, 1, 1, 4}), zeros({1, 1, 10, 4}), zeros({1, 1, 10, 4}));
    EXPECT_EQ(y.log_sum_exp.dtype(), DType::float32);
    EXPECT_FLOAT_EQ(y.log_sum_exp.at<float>({0, 0, 0}), std::log(10.0F));
}

// Keyed by (seed, sequence, head, query, key): a part of a problem draws what the whole does.
TEST_P(Semantics, DropoutIsAFunctionOfPosition) {
    const Tensor q = zeros({2, 2, 70, 4});
    const Tensor k = zeros({2, 2, 130, 4});
    const AttentionResult y = run(q, k, k, {.dropout = 0.25, .seed = 5});
    std::int64_t kept = 0;
    for (std::int64_t b = 0; b < 2; ++b) {
        for (std::int64_t i = 0; i < 70; ++i) {
            for (std::int64_t j = 0; j < 130; ++j) {
                const auto words = philox4x32({static_cast<std::uint32_t>(j / 4), static_cast<std::uint32_t>(i), 1U,
                                               static_cast<std::uint32_t>(b)},
                                              5);
                const bool keep = words[static_cast<std::size_t>(j % 4)] >= 0x40000000U;
                EXPECT_FLOAT_EQ(y.weights.at<float>({b, 1, i, j}), keep ? 1.0F / 130.0F / 0.75F : 0.0F);
                kept += keep ? 1 : 0;
            }
        }
    }
    EXPECT_NEAR(static_cast<double>(kept) / (2 * 70 * 130), 0.75, 0.02);
    const AttentionResult all = run(q, k, ones_like(k), {.dropout = 1.0});
    EXPECT_EQ(all.output.at<float>({0, 0, 0, 0}), 0.0F);
}

// [B, L, H, D] and packed [B, L, 3, H, D] are views; results can be written into them.
TEST_P(Semantics, LayoutsAreViews) {
    const Tensor qkv = normal({2, 33, 3, 4, 16}, 8);
    const auto part = [&](int which) { return qkv.view().select(2, which).transpose(1, 2); };
    const AttentionOptions options{.mask = Mask::causal(), .algorithm = GetParam()};
    const AttentionResult want = run(part(0).clone(), part(1).clone(), part(2).clone(), options);
    EXPECT_TRUE(same_bits(run(part(0), part(1), part(2), options).output, want.output));

    Tensor rows({2, 33, 4, 16});
    poison(rows);
    attention_into({.output = rows.view().transpose(1, 2)}, part(0), part(1), part(2), options);
    EXPECT_TRUE(same_bits(rows.view().transpose(1, 2).clone(), want.output));

    const Tensor grad = normal({2, 33, 4, 16}, 9);
    const AttentionGradients grad_want =
        attention_backward(grad.view().transpose(1, 2).clone(), part(0), part(1), part(2), want, options);
    Tensor packed_grad({2, 33, 3, 4, 16});
    poison(packed_grad);
    const auto grad_part = [&](int which) { return packed_grad.view().select(2, which).transpose(1, 2); };
    attention_backward_into({grad_part(0), grad_part(1), grad_part(2), {}}, grad.view().transpose(1, 2), part(0),
                            part(1), part(2), want.output, want.log_sum_exp, options);
    EXPECT_TRUE(same_bits(grad_part(0).clone(), grad_want.query));
    EXPECT_TRUE(same_bits(grad_part(1).clone(), grad_want.key));
    EXPECT_TRUE(same_bits(grad_part(2).clone(), grad_want.value));
}

// Grouped heads equal heads whose keys and values are repeated.
TEST_P(Semantics, GroupedHeads) {
    const Tensor q = normal({2, 6, 20, 8}, 1);
    const Tensor k = normal({2, 2, 25, 8}, 2);
    const Tensor v = normal({2, 2, 25, 8}, 3);
    const auto repeat = [](const Tensor& t) {
        return t.view().unsqueeze(2).broadcast_to({2, 2, 3, 25, 8}).clone().view().reshape({2, 6, 25, 8}).clone();
    };
    const Tensor kk = repeat(k);
    const Tensor vv = repeat(v);
    const AttentionResult found = run(q, k, v);
    const AttentionResult want = run(q, kk, vv);
    EXPECT_TRUE(same_bits(found.output, want.output));
    const AttentionOptions options{.algorithm = GetParam()};
    const AttentionGradients g = attention_backward(ones_like(found.output), q, k, v, found, options);
    const AttentionGradients w = attention_backward(ones_like(found.output), q, kk, vv, want, options);
    Tensor sum = zeros({2, 2, 25, 8}, DType::float64);
    for (std::int64_t h = 0; h < 6; ++h) {
        for (std::int64_t e = 0; e < 2 * 25 * 8; ++e) {
            const std::int64_t b = e / 200;
            sum.at<double>({b, h / 3, e % 200 / 8, e % 8}) += w.key.at<float>({b, h, e % 200 / 8, e % 8});
        }
    }
    EXPECT_LE(row_error(g.key, sum), 1e-6);
}

// Packed sequences give the bits of the same sequences in a padded batch, dropout included; very short ones among them.
TEST_P(Semantics, PackedEqualsPadded) {
    const std::vector<std::int64_t> lengths{40, 3, 67, 1, 4, 0, 5, 2};
    std::vector<std::int64_t> starts{0};
    for (const std::int64_t n : lengths) starts.push_back(starts.back() + n);
    const auto count = static_cast<std::int64_t>(lengths.size());
    const std::int64_t longest = *std::max_element(lengths.begin(), lengths.end());
    const Shape packed_keys{1, 2, starts.back(), 16};
    const auto rows_of = [&](const TensorView& packed, std::int64_t s) {
        const auto at = static_cast<std::size_t>(s);
        return packed.select(0, 0).slice(1, starts[at], starts[at + 1]);
    };
    const auto padded_of = [&](const Tensor& packed) {
        const Shape& shape = packed.shape();
        Tensor padded({count, shape[1], longest, shape[3]}, packed.dtype());
        for (std::int64_t s = 0; s < count; ++s) {
            padded.view()
                .select(0, s)
                .slice(1, 0, lengths[static_cast<std::size_t>(s)])
                .copy_from(rows_of(packed.view(), s));
        }
        return padded;
    };
    for (const std::int64_t heads : {2, 6, 34}) {
        for (const double dropout : {0.0, 0.2}) {
            const Tensor q = normal({1, heads, starts.back(), 16}, 1);
            const Tensor k = normal(packed_keys, 2);
            const Tensor v = normal(packed_keys, 3);
            AttentionOptions options{.mask = Mask::packed(starts) & Mask::causal(), .dropout = dropout, .seed = 3};
            const AttentionResult packed = run(q, k, v, options);
            options.mask = Mask::key_lengths(lengths) & Mask::causal();
            const AttentionResult padded = run(padded_of(q), padded_of(k), padded_of(v), options);
            for (std::int64_t s = 0; s < count; ++s) {
                const std::int64_t length = lengths[static_cast<std::size_t>(s)];
                EXPECT_TRUE(same_bits(rows_of(packed.output.view(), s).clone(),
                                      padded.output.view().select(0, s).slice(1, 0, length).clone()))
                    << length << " tokens, " << heads << " heads, dropout " << dropout;
                if (dropout > 0.0) continue;
                options.mask = Mask::causal();
                const auto alone = [&](const Tensor& x) { return rows_of(x.view(), s).unsqueeze(0).clone(); };
                EXPECT_TRUE(same_bits(run(alone(q), alone(k), alone(v), options).output,
                                      rows_of(packed.output.view(), s).unsqueeze(0).clone()))
                    << length << " tokens alone, " << heads << " heads";
            }
        }
    }
}

// The same bits for any number of threads, twice, and alone or in a batch.
TEST_P(Semantics, BitsDoNotDependOnThreadsOrBatch) {
    // The oracle's backward is one thread's.
    const bool reference = GetParam() == Algorithm::reference;
    const std::vector<int> counts = reference ? std::vector<int>{3} : std::vector<int>{2, 3, 7};
    for (Case c : option_cases()) {
        const Problem p(c, DType::float32, 21);
        set_num_threads(1);
        const AttentionResult one = p.forward(GetParam());
        const AttentionGradients grad_one = p.backward(one, GetParam());
        for (const int threads : counts) {
            set_num_threads(threads);
            const AttentionResult many = p.forward(GetParam());
            EXPECT_TRUE(same_bits(one.output, many.output)) << c.name;
            EXPECT_TRUE(same_bits(one.weights, many.weights)) << c.name;
            EXPECT_TRUE(same_bits(one.log_sum_exp, many.log_sum_exp)) << c.name;
            const AttentionGradients grad_many = p.backward(many, GetParam());
            EXPECT_TRUE(same_bits(grad_one.query, grad_many.query)) << c.name;
            EXPECT_TRUE(same_bits(grad_one.key, grad_many.key)) << c.name;
            EXPECT_TRUE(same_bits(grad_one.value, grad_many.value)) << c.name;
            EXPECT_TRUE(same_bits(grad_one.bias, grad_many.bias)) << c.name;
        }
        set_num_threads(0);
    }
    const Tensor q = normal({3, 2, 50, 16}, 1);
    const AttentionResult batch = run(q, q, q, {.mask = Mask::causal()});
    const TensorView alone = q.view().slice(0, 2, 3);
    EXPECT_TRUE(same_bits(run(alone, alone, alone, {.mask = Mask::causal()}).output,
                          batch.output.view().slice(0, 2, 3).clone()));
}

}  // namespace
}  // namespace attend::testing
