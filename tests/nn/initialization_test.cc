// Modules made after a seed hold PyTorch's numbers; the order of calls is that of scripts/make_goldens.py.
#include "tests/support/compare.h"

#include <attend/core/error.h>
#include <attend/io/safetensors.h>
#include <attend/nn/embedding.h>
#include <attend/nn/linear.h>
#include <attend/nn/multi_head_attention.h>

#include <gtest/gtest.h>

#include <algorithm>

namespace attend::testing {
namespace {

TEST(Initialization, EqualsPyTorch) {
    const SafetensorsFile file = SafetensorsFile::open(ATTEND_TEST_DATA "/nn/initialization.safetensors");
    TorchGenerator generator(3);
    const auto check = [&](const std::string& prefix, const nn::StateDict& state) {
        EXPECT_FALSE(state.empty());
        for (const auto& [name, tensor] : state) {
            EXPECT_LE(row_error(tensor, file.view(prefix + "." + name)), 1.2e-7) << prefix << "." << name;
        }
    };
    const nn::Linear linear({.in_features = 5, .out_features = 7}, generator);
    check("linear", linear.state_dict());
    check("linear_no_bias", nn::Linear({.in_features = 40, .out_features = 3, .bias = false}, generator).state_dict());
    check("embedding", nn::Embedding({.num_embeddings = 10, .embedding_dim = 4}, generator).state_dict());
    check("attention", nn::MultiHeadAttention({.d_model = 8, .num_heads = 2}, generator).state_dict());
    check("attention_separate",
          nn::MultiHeadAttention({.d_model = 8, .num_heads = 2, .key_dim = 3, .value_dim = 5}, generator)
              .state_dict(nn::ParameterNames::separate));
    // Both sum six terms in float32, in orders of their own: twelve roundings at most.
    EXPECT_LE(row_error(linear.forward(file.view("x")), file.view("y")), 12 * 0x1p-24);
}

TEST(Linear, KeepsItsWeightPackedAsTold) {
    const Tensor x = normal({3, 40}, 1);
    const Tensor weight = normal({7, 40}, 2);
    const Tensor bias = normal({7}, 3);
    const nn::StateDict state{{"weight", weight}, {"bias", bias}};
    EXPECT_TRUE(same_bits(nn::Linear(state).state_dict().at("weight"), weight));
    EXPECT_TRUE(same_bits(nn::Linear(weight.to(DType::bfloat16), bias).weight(), weight.to(DType::bfloat16)));
    EXPECT_TRUE(same_bits(nn::Linear(state, DType::bfloat16).weight(), weight.to(DType::bfloat16).to(DType::float32)));
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::int8}) {
        const nn::Linear linear(state, dtype);
        EXPECT_EQ(linear.packed().dtype(), dtype);
        DenseOptions options;
        options.bias = bias;
        EXPECT_TRUE(same_bits(linear.forward(x), matmul(x, PackedMatrix(weight, {.dtype = dtype}), options)));
        EXPECT_TRUE(same_bits(nn::Linear(PackedMatrix(weight, {.dtype = dtype}), bias).forward(x), linear.forward(x)));
        EXPECT_LT(row_error(linear.forward(x), nn::Linear(state).forward(x)), 0.05);
    }
    const Tensor residual = normal({3, 7}, 4);
    const nn::Linear linear(state);
    const Tensor y = linear.forward(x, {.activation = Activation::relu, .residual = residual});
    for (std::int64_t i = 0; i < 21; ++i) {
        EXPECT_EQ(y.data<float>()[i], std::max(linear.forward(x).data<float>()[i], 0.0F) + residual.data<float>()[i]);
    }
    // Parameters or inputs in float64 are computed in double.
    const Tensor wide = nn::Linear(weight.to(DType::float64), bias).forward(x.to(DType::float64));
    EXPECT_EQ(wide.dtype(), DType::float64);
    EXPECT_LT(row_error(linear.forward(x.to(DType::float64)), wide), 1e-15);
    EXPECT_LT(row_error(linear.forward(x), wide.to(DType::float32)), 41 * 0x1p-24);
}

TEST(Linear, StridesTypesAndEmptyInputs) {
    TorchGenerator generator(1);
    const nn::Linear linear({.in_features = 6, .out_features = 4}, generator);
    const Tensor x = normal({3, 5, 6}, 1);
    const Tensor y = linear.forward(x);
    EXPECT_EQ(y.shape(), (Shape{3, 5, 4}));
    EXPECT_TRUE(same_bits(linear.forward(x.view().transpose(0, 1)), y.view().transpose(0, 1).clone()));
    EXPECT_TRUE(same_bits(linear.forward(x.view().select(0, 1)), y.view().select(0, 1).clone()));
    EXPECT_LE(row_error(linear.forward(x.to(DType::bfloat16)), y), 0.02);
    EXPECT_EQ(linear.forward(zeros({0, 6})).shape(), (Shape{0, 4}));
    EXPECT_EQ(linear.forward(zeros({6})).shape(), (Shape{4}));
    EXPECT_EQ(message_of<ShapeError>([&] {
                  linear.forward(zeros({2, 5}));
              }),
              "[linear] expected input of shape [..., 6], found [2, 5]");
    EXPECT_THROW(linear.forward(zeros({2, 6}, DType::int32)), DTypeError);
    EXPECT_THROW(nn::Linear({{"bias", zeros({3})}}), ValueError);
    EXPECT_THROW(nn::Linear({{"weight", zeros({3})}}), ShapeError);
    EXPECT_THROW(nn::Linear({{"weight", zeros({3, 2}, DType::int8)}}), DTypeError);
}

TEST(Embedding, LooksUpAndChecks) {
    const nn::Embedding embedding({{"weight", Tensor::from<float>({0, 1, 2, 3, 4, 5}, Shape{3, 2})}});
    const Tensor y = embedding.forward(Tensor::from<std::int64_t>({2, 0, 1, 2}, Shape{2, 2}));
    EXPECT_EQ(y.shape(), (Shape{2, 2, 2}));
    EXPECT_EQ(values(y), (std::vector<double>{4, 5, 0, 1, 2, 3, 4, 5}));
    EXPECT_EQ(message_of<ValueError>([&] { embedding.forward(Tensor::from<std::int64_t>({3})); }),
              "[Embedding] expected indices below 3, found 3");
    EXPECT_THROW(embedding.forward(Tensor::from<std::int64_t>({-1})), ValueError);
    EXPECT_THROW(embedding.forward(zeros({1})), DTypeError);
}

TEST(LinearFunction, TakesAnyStridesAndChecksItsParameters) {
    const Tensor x = normal({3, 5}, 1);
    const Tensor weight = normal({5, 4}, 2);
    const Tensor bias = normal({4}, 3);
    const Tensor rows = weight.view().transpose(0, 1).clone();
    const Tensor wide = normal({8}, 3);
    EXPECT_TRUE(same_bits(nn::linear(x, weight.view().transpose(0, 1), bias), nn::linear(x, rows, bias)));
    const TensorView every_other = wide.view().slice(0, 0, 8, 2);
    EXPECT_TRUE(same_bits(nn::linear(x, rows, every_other), nn::linear(x, rows, every_other.clone())));
    EXPECT_EQ(message_of<ShapeError>([&] { nn::linear(x, rows, normal({1}, 3)); }),
              "[linear] expected a bias of shape [4] or without elements, found [1]");
    EXPECT_EQ(message_of<ShapeError>([&] { nn::linear(x, bias, bias); }),
              "[linear] expected a weight of shape [out, in], found [4]");
    EXPECT_EQ(message_of<DTypeError>([&] { nn::linear(x, rows.to(DType::int64), bias); }),
              "[linear] expected floating parameters, found int64 and float32");
}

}  // namespace
}  // namespace attend::testing
