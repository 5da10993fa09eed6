#include "tests/support/compare.h"

#include <attend/core/error.h>
#include <attend/nn/linear.h>
#include <attend/nn/linear_attention.h>

#include <gtest/gtest.h>

#include <vector>

namespace attend::testing {
namespace {

TEST(LinearAttentionModule, TakesAndGivesTheParametersOfMultiHeadAttention) {
    const nn::MultiHeadAttention softmax({.d_model = 24, .num_heads = 3});
    const nn::LinearAttention linear(softmax.state_dict(), 3);
    for (const nn::ParameterNames names :
         {nn::ParameterNames::packed, nn::ParameterNames::separate, nn::ParameterNames::tutorial}) {
        const nn::StateDict want = softmax.state_dict(names);
        const nn::StateDict found = linear.state_dict(names);
        ASSERT_EQ(found.size(), want.size());
        for (const auto& [name, tensor] : want) EXPECT_TRUE(same_bits(found.at(name), tensor)) << name;
    }
}

// With one key both give its value, whatever the weights: the stand-in is the same module around another attention.
TEST(LinearAttentionModule, OneKeyIsTheSameForBoth) {
    const nn::MultiHeadAttention softmax({.d_model = 32, .num_heads = 4});
    const nn::LinearAttention linear(softmax.state_dict(), 4);
    const Tensor query = normal({2, 5, 32}, 1);
    const Tensor memory = normal({2, 1, 32}, 2);
    EXPECT_LE(row_error(linear.forward(query, memory, memory).output, softmax.forward(query, memory, memory).output),
              1e-5);
}

TEST(LinearAttentionModule, IsLinearAttentionBetweenProjections) {
    const LinearAttentionOptions options{.feature_map = FeatureMap::relu, .normalise = true, .causal = true};
    const nn::LinearAttention module({.d_model = 16, .num_heads = 2}, options);
    const nn::StateDict state = module.state_dict(nn::ParameterNames::separate);
    const Tensor x = normal({2, 40, 16}, 3);
    const Tensor none;
    const auto heads = [&](const char* name) {
        return nn::linear(x, state.at(name), none).view().reshape({2, 40, 2, 8}).transpose(1, 2).clone();
    };
    const Tensor inner =
        linear_attention(heads("q_proj_weight"), heads("k_proj_weight"), heads("v_proj_weight"), options);
    const Tensor joined = inner.view().transpose(1, 2).clone();
    const Tensor want = nn::linear(joined.view().reshape({2, 40, 16}), state.at("out_proj.weight"), none);
    EXPECT_LE(row_error(module.forward(x).output, want), 1e-5);
    EXPECT_LE(row_error(module.forward(x, options).output, want), 1e-5);
}

TEST(LinearAttentionModule, TokenByTokenIsTheWholeInOrder) {
    const nn::LinearAttention module({.d_model = 16, .num_heads = 2});
    const Tensor x = normal({2, 40, 16}, 3);
    LinearAttentionOptions options = module.options();
    options.causal = true;
    const Tensor want = module.forward(x, options).output;
    LinearAttentionState state = module.make_state(2);
    std::int64_t begin = 0;
    for (const std::int64_t count : {33, 1, 4, 1, 1}) {
        const Tensor found = module.forward_next(x.view().slice(1, begin, begin + count), state).output;
        EXPECT_LE(row_error(found, want.view().slice(1, begin, begin + count)), 1e-5) << begin;
        begin += count;
    }
    const std::vector<std::int64_t> swapped = {1, 0};
    const Tensor first = state.state().view().select(0, 0).clone();
    state.reorder(swapped);
    EXPECT_TRUE(same_bits(state.state().view().select(0, 1).clone(), first));
    LinearAttentionOptions raw = module.options();
    raw.normalise = false;
    EXPECT_THROW(module.forward_next(x, state, raw), ValueError);
    const std::vector<std::int64_t> beyond = {2};
    EXPECT_THROW(state.reorder(beyond), ValueError);
}

}  // namespace
}  // namespace attend::testing
