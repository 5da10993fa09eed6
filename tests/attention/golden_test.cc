// PyTorch's scaled_dot_product_attention and its gradients, from scripts/make_goldens.py.
#include "tests/support/compare.h"

#include <attend/attention/attention.h>
#include <attend/io/safetensors.h>

#include "magnitude.h"

#include <gtest/gtest.h>

#include <cmath>

namespace attend::testing {
namespace {

class Golden : public ::testing::TestWithParam<std::string> {};

TEST_P(Golden, EqualsPyTorch) {
    const SafetensorsFile file = SafetensorsFile::open(ATTEND_TEST_DATA "/attention/" + GetParam() + ".safetensors");
    const TensorView q = file.view("query");
    const TensorView k = file.view("key");
    const TensorView v = file.view("value");
    AttentionOptions options;
    if (file.contains("mask")) options.mask = Mask::boolean(file.view("mask"));
    if (file.contains("bias")) options.bias = file.view("bias");
    if (file.metadata().count("is_causal") != 0) options.mask = Mask::causal_top_left();
    if (file.metadata().count("scale") != 0) options.scale = std::stod(file.metadata().at("scale"));
    for (const Algorithm algorithm : {Algorithm::reference, Algorithm::flash, Algorithm::automatic}) {
        options.algorithm = algorithm;
        options.return_weights = true;
        const double bound = algorithm == Algorithm::reference ? 3e-7 : 5e-6;
        const AttentionResult y = attention(q, k, v, options);
        EXPECT_LE(row_error(y.output, file.view("output")), bound);
        const double scale = options.scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(-1))));
        const Magnitudes m = magnitudes(q, k, v, file.view("grad_output"), y.weights, scale);
        const AttentionGradients g = attention_backward(file.view("grad_output"), q, k, v, y, options);
        EXPECT_LE(row_error(g.query, file.view("grad_query"), m.query), bound);
        EXPECT_LE(row_error(g.key, file.view("grad_key"), m.key), bound);
        EXPECT_LE(row_error(g.value, file.view("grad_value"), m.value), bound);
        if (options.bias) {
            EXPECT_LE(row_error(g.bias, file.view("grad_bias")), bound);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Files, Golden, ::testing::Values("plain", "top_left", "boolean", "bias", "scale", "grouped"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace attend::testing
