#include "tests/support/compare.h"

#include <attend/core/error.h>
#include <attend/io/safetensors.h>
#include <attend/nn/multi_head_attention.h>

#include <gtest/gtest.h>

#include <cstdio>

namespace attend::testing {
namespace {

using nn::MultiHeadAttention;
using nn::ParameterNames;

constexpr double kBound = 1e-6;  // of the row's scale, to PyTorch's values computed in float64

SafetensorsFile golden(const std::string& name) {
    return SafetensorsFile::open(std::string(ATTEND_TEST_DATA) + "/nn/" + name + ".safetensors");
}

void check_self_cross_causal(const SafetensorsFile& file, const MultiHeadAttention& module) {
    const TensorView x = file.view("x");
    const TensorView memory = file.view("memory");
    const auto check = [&](const std::string& name, const nn::MultiHeadAttentionResult& y) {
        EXPECT_LE(row_error(y.output, file.view(name + ".output")), kBound) << name;
        EXPECT_LE(row_error(y.weights, file.view(name + ".weights")), kBound) << name;
    };
    check("self", module.forward(x, {.return_weights = true}));
    check("cross", module.forward(x, memory, memory, {.return_weights = true}));
    check("causal", module.forward(x, {.mask = Mask::causal(), .return_weights = true}));
}

TEST(MultiHeadAttention, EqualsPyTorch) {
    const SafetensorsFile file = golden("multi_head_attention");
    const MultiHeadAttention module(nn::with_prefix(file.load_all(), "state."), 4);
    check_self_cross_causal(file, module);
    const nn::MultiHeadAttentionResult y = module.forward(file.view("x"), {.return_weights = true});
    EXPECT_LE(row_error(nn::mean_over_heads(y.weights), file.view("self.mean_weights")), kBound);
}

TEST(MultiHeadAttention, EqualsTheTutorialsClass) {
    const SafetensorsFile file = golden("tutorial_attention");
    check_self_cross_causal(file, MultiHeadAttention(nn::with_prefix(file.load_all(), "state."), 4));
}

TEST(MultiHeadAttention, KeysAndValuesOfOtherWidths) {
    const SafetensorsFile file = golden("multi_head_attention_separate");
    const MultiHeadAttention module(nn::with_prefix(file.load_all(), "state."), 2);
    const auto y = module.forward(file.view("x"), file.view("keys"), file.view("values"), {.return_weights = true});
    EXPECT_LE(row_error(y.output, file.view("output")), kBound);
    EXPECT_LE(row_error(y.weights, file.view("weights")), kBound);
    EXPECT_THROW(module.state_dict(ParameterNames::packed), ValueError);
}

// Whatever names parameters are saved under, the file gives back the same module.
TEST(MultiHeadAttention, ParametersSurviveAFileUnderAllNames) {
    const SafetensorsFile file = golden("multi_head_attention");
    const nn::StateDict state = nn::with_prefix(file.load_all(), "state.");
    const MultiHeadAttention module(state, 4);
    const Tensor want = module.forward(file.view("x")).output;
    for (const ParameterNames names : {ParameterNames::packed, ParameterNames::separate, ParameterNames::tutorial}) {
        const std::string path = ::testing::TempDir() + "attend_mha.safetensors";
        save_safetensors(path, module.state_dict(names));
        const MultiHeadAttention again(SafetensorsFile::open(path).load_all(), 4);
        EXPECT_TRUE(same_bits(again.forward(file.view("x")).output, want));
        std::remove(path.c_str());
    }
    const nn::StateDict packed = module.state_dict();
    ASSERT_EQ(packed.size(), state.size());
    for (const auto& [name, tensor] : state) EXPECT_TRUE(same_bits(packed.at(name), tensor)) << name;
    EXPECT_EQ(module.state_dict(ParameterNames::separate).count("q_proj_weight"), 1U);
    EXPECT_EQ(module.state_dict(ParameterNames::tutorial).count("W_o.bias"), 1U);
}

TEST(MultiHeadAttention, OtherTypes) {
    const SafetensorsFile file = golden("multi_head_attention");
    const MultiHeadAttention module(nn::with_prefix(file.load_all(), "state."), 4);
    for (const DType dtype : {DType::float64, DType::bfloat16, DType::float16}) {
        const Tensor x = file.view("x").to(dtype);
        const nn::MultiHeadAttentionResult y = module.forward(x, {.return_weights = true});
        EXPECT_EQ(y.output.dtype(), dtype);
        EXPECT_LE(row_error(y.output, file.view("self.output")), dtype == DType::float64 ? 1e-7 : 0.05);
    }
}

TEST(MultiHeadAttention, RefusesWhatDoesNotFit) {
    const nn::StateDict state = nn::with_prefix(golden("multi_head_attention").load_all(), "state.");
    EXPECT_EQ(message_of<ValueError>([&] { MultiHeadAttention(state, 3); }),
              "[MultiHeadAttention] expected a number of heads that divides d_model 16, found 3");
    nn::StateDict missing = state;
    missing.erase("out_proj.weight");
    EXPECT_EQ(message_of<ValueError>([&] { MultiHeadAttention(missing, 4); }),
              "[MultiHeadAttention] expected a parameter 'out_proj.weight' of shape [16, 16], found 'in_proj_bias', "
              "'in_proj_weight', 'out_proj.bias'");
    nn::StateDict other = state;
    other.emplace("gamma", Tensor({3}));
    EXPECT_NE(message_of<ValueError>([&] { MultiHeadAttention(other, 4); }).find("found 'gamma'"), std::string::npos);
    nn::StateDict wrong = state;
    wrong["in_proj_bias"] = Tensor({47});
    EXPECT_EQ(message_of<ShapeError>([&] { MultiHeadAttention(wrong, 4); }),
              "[MultiHeadAttention] expected parameter 'in_proj_bias' of shape [48], found [47]");
    const MultiHeadAttention module(state, 4);
    EXPECT_EQ(message_of<ShapeError>([&] {
                  module.forward(zeros({2, 5, 8}));
              }),
              "[MultiHeadAttention] expected query of shape [batch, length, 16], found [2, 5, 8]");
    EXPECT_THROW(MultiHeadAttention({.d_model = 10, .num_heads = 4}), ValueError);
    EXPECT_THROW(MultiHeadAttention({.d_model = 0}), ValueError);
}

// T5's heads are as wide as they like.
TEST(MultiHeadAttention, HeadsNeedNotBeAsWideAsTheModelTogether) {
    nn::StateDict state{{"W_q.weight", normal({12, 8}, 1)},
                        {"W_k.weight", normal({12, 8}, 2)},
                        {"W_v.weight", normal({12, 8}, 3)},
                        {"W_o.weight", normal({8, 12}, 4)}};
    const MultiHeadAttention module(state, 3);
    EXPECT_EQ(module.d_model(), 8);
    EXPECT_EQ(module.inner_dim(), 12);
    EXPECT_EQ(module.head_dim(), 4);
    const Tensor x = normal({2, 5, 8}, 5);
    const Tensor y = module.forward(x).output;
    EXPECT_EQ(y.shape(), (Shape{2, 5, 8}));
    const MultiHeadAttention loaded(module.state_dict(ParameterNames::tutorial), 3);
    EXPECT_TRUE(same_bits(loaded.forward(x).output, y));
    EXPECT_EQ(message_of<ValueError>([&] { module.state_dict(); }),
              "[MultiHeadAttention] expected heads that are as wide as d_model, 8, together for PyTorch's names, found "
              "12");
    EXPECT_THROW(MultiHeadAttention(state, 5), ValueError);
    const auto linear = [](std::int64_t out, std::int64_t in) { return nn::Linear(zeros({out, in}), TensorView()); };
    EXPECT_EQ(message_of<ShapeError>(
                  [&] { MultiHeadAttention(linear(12, 8), linear(11, 8), linear(12, 8), linear(8, 12), 3); }),
              "[MultiHeadAttention] expected projections to 12, as the query's, found one to 11");
    EXPECT_EQ(message_of<ShapeError>(
                  [&] { MultiHeadAttention(linear(12, 8), linear(12, 8), linear(12, 8), linear(12, 12), 3); }),
              "[MultiHeadAttention] expected an output projection of shape [8, 12], found [12, 12]");
    state.at("W_o.weight") = zeros({12, 8});
    EXPECT_THROW(MultiHeadAttention(state, 3), ShapeError);
}

// PyTorch's module has all biases or none; a tutorial's four layers may have some.
TEST(MultiHeadAttention, SomeBiasesSurviveSaving) {
    const Tensor x = normal({2, 3, 4}, 9);
    nn::StateDict some;
    for (const char* name : {"W_q", "W_k", "W_v", "W_o"})
        some.emplace(std::string(name) + ".weight", normal({4, 4}, 1));
    for (const char* present : {"W_q.bias", "W_k.bias", "W_o.bias"}) {
        nn::StateDict state = some;
        state.emplace(present, normal({4}, 2));
        const nn::MultiHeadAttention mha(state, 2);
        for (const nn::ParameterNames names :
             {nn::ParameterNames::packed, nn::ParameterNames::separate, nn::ParameterNames::tutorial}) {
            const nn::MultiHeadAttention loaded(mha.state_dict(names), 2);
            EXPECT_TRUE(same_bits(loaded.forward(x).output, mha.forward(x).output)) << present;
        }
    }
    EXPECT_THROW(nn::MultiHeadAttention({.d_model = 1000000000, .num_heads = 7}), ValueError);
}

}  // namespace
}  // namespace attend::testing
