// What is refused, and in which words.
#include "tests/support/compare.h"

#include <attend/attention/attention.h>
#include <attend/attention/linear_attention.h>
#include <attend/core/error.h>

#include <gtest/gtest.h>

#include <limits>

namespace attend::testing {
namespace {

struct Inputs {
    Tensor query = zeros({2, 4, 5, 8});
    Tensor key = zeros({2, 2, 7, 8});
    Tensor value = zeros({2, 2, 7, 6});
    AttentionOptions options = {};

    template <typename E>
    std::string message() const {
        return message_of<E>([this] { attention(query, key, value, options); });
    }
};

TEST(AttentionErrors, Shapes) {
    Inputs in;
    in.query = zeros({4, 5, 8});
    EXPECT_EQ(in.message<ShapeError>(),
              "[attention] expected query of shape [batch, heads, length, dim], found [4, 5, 8]");
    in = {};
    in.key = zeros({2, 2, 7, 9});
    EXPECT_EQ(in.message<ShapeError>(), "[attention] expected key of shape [2, *, *, 8], found [2, 2, 7, 9]");
    in = {};
    in.value = zeros({2, 2, 6, 6});
    EXPECT_EQ(in.message<ShapeError>(), "[attention] expected value of shape [2, 2, 7, *], found [2, 2, 6, 6]");
    in = {};
    in.query = zeros({2, 3, 5, 8});
    EXPECT_EQ(in.message<ShapeError>(),
              "[attention] expected a number of query heads that is a multiple of the 2 key heads, found 3");
    in = {};
    in.key = zeros({2, 0, 7, 8});
    in.value = zeros({2, 0, 7, 6});
    EXPECT_EQ(in.message<ShapeError>(),
              "[attention] expected a number of query heads that is a multiple of the 0 key heads, found 4");
}

// As they are: rounded, a number just beyond a limit would read like the limit.
TEST(AttentionErrors, NumbersReadBackTheSame) {
    Inputs in;
    in.options = {.dropout = -1e-9};
    EXPECT_EQ(in.message<ValueError>(), "[attention] expected a dropout probability in [0, 1], found -1e-09");
    in.options = {.dropout = 1.0 + 1e-9};
    EXPECT_EQ(in.message<ValueError>(), "[attention] expected a dropout probability in [0, 1], found 1.000000001");
    in.options = {.softcap = -1e-9};
    EXPECT_EQ(in.message<ValueError>(), "[attention] expected a finite soft cap above 0, found -1e-09");
}

TEST(AttentionErrors, Types) {
    Inputs in;
    in.query = zeros({2, 4, 5, 8}, DType::int32);
    EXPECT_EQ(in.message<DTypeError>(),
              "[attention] expected query of type float32, float64, bfloat16 or float16, found int32");
    in = {};
    in.value = zeros({2, 2, 7, 6}, DType::bfloat16);
    EXPECT_EQ(in.message<DTypeError>(), "[attention] expected value of type float32, found bfloat16");
    in = {};
    const Tensor integers = zeros({5, 7}, DType::int64);
    in.options.bias = integers.view();
    EXPECT_EQ(in.message<DTypeError>(), "[attention] expected a floating bias, found int64");
}

TEST(AttentionErrors, Strides) {
    Inputs in;
    const Tensor base = zeros({2, 4, 8, 5});
    EXPECT_EQ(message_of<ShapeError>([&] { attention(base.view().transpose(2, 3), in.key, in.value); }),
              "[attention] expected query with a contiguous last dimension, found strides [160, 40, 1, 5] for shape "
              "[2, 4, 5, 8]; clone it first");
}

TEST(AttentionErrors, Options) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    Inputs in;
    for (const double bad : {-0.1, 1.5, nan}) {
        in.options = {.dropout = bad};
        EXPECT_NE(in.message<ValueError>().find("expected a dropout probability in [0, 1]"), std::string::npos);
    }
    for (const double bad : {0.0, -1.0, nan}) {
        in.options = {.softcap = bad};
        EXPECT_NE(in.message<ValueError>().find("expected a finite soft cap above 0"), std::string::npos);
    }
    in.options = {.scale = nan};
    EXPECT_NE(in.message<ValueError>().find("expected a finite scale"), std::string::npos);
    const Tensor bias = zeros({2, 1, 5, 6});
    in.options = {.bias = bias};
    EXPECT_EQ(in.message<ShapeError>(),
              "[attention] expected a bias that broadcasts to [2, 4, 5, 7], found [2, 1, 5, 6]");
    const Tensor slopes = zeros({2});
    in.options = {.alibi_slopes = slopes};
    EXPECT_EQ(in.message<ShapeError>(), "[attention] expected alibi_slopes of shape [4] or [2, 4], found [2]");
}

TEST(AttentionErrors, Masks) {
    Inputs in;
    in.options.mask = Mask::key_lengths({7});
    EXPECT_EQ(in.message<ShapeError>(), "[attention] expected 2 key lengths, one for each sequence, found 1");
    in.options.mask = Mask::key_lengths({7, 8});
    EXPECT_EQ(in.message<ValueError>(), "[attention] expected key length 1 in [0, 7], found 8");
    in.options.mask = Mask::causal(std::vector<std::int64_t>{1, 2, 3});
    EXPECT_EQ(in.message<ShapeError>(), "[attention] expected 1 or 2 query offsets, found 3");
    in.options.mask = Mask::packed({0, 5}, {0, 7});
    EXPECT_EQ(in.message<ShapeError>(), "[attention] expected a batch of 1 for packed sequences, found 2");
    in = {.query = zeros({1, 4, 5, 8}), .key = zeros({1, 2, 7, 8}), .value = zeros({1, 2, 7, 6})};
    in.options.mask = Mask::packed({0, 3, 2}, {0, 3, 7});
    EXPECT_EQ(in.message<ValueError>(),
              "[attention] expected query starts that rise from 0 to at most 5, found [0, 3, 2]");
    in.options.mask = Mask::packed({0, 3}, {0, 8});
    EXPECT_EQ(in.message<ValueError>(), "[attention] expected key starts that rise from 0 to at most 7, found [0, 8]");
    in.options.mask = Mask::packed({}, {});
    EXPECT_NE(in.message<ValueError>().find("found []"), std::string::npos);
    in.options.mask = Mask::boolean(full({5, 8}, 1.0, DType::boolean));
    EXPECT_EQ(in.message<ShapeError>(),
              "[attention] expected a boolean mask that broadcasts to [1, 4, 5, 7], found [5, 8]");
    EXPECT_THROW(Mask::key_lengths({1}) & Mask::key_lengths({1}), ValueError);
    EXPECT_THROW(Mask::packed({0}) & Mask::packed({0}), ValueError);
    EXPECT_THROW(Mask::packed({0, 1}, {0}), ValueError);
}

TEST(AttentionErrors, Targets) {
    const Inputs in;
    Tensor output = zeros({2, 4, 5, 8});
    EXPECT_EQ(message_of<ShapeError>([&] { attention_into({.output = output}, in.query, in.key, in.value); }),
              "[attention] expected output of shape [2, 4, 5, 6], found [2, 4, 5, 8]");
    Tensor right = zeros({2, 4, 5, 6});
    Tensor rounded = zeros({2, 4, 5}, DType::bfloat16);
    EXPECT_THROW(attention_into({.output = right, .log_sum_exp = rounded}, in.query, in.key, in.value), DTypeError);
    const AttentionResult y = attention(in.query, in.key, in.value);
    EXPECT_EQ(message_of<ShapeError>([&] { attention_backward(output, in.query, in.key, in.value, y); }),
              "[attention_backward] expected grad_output of shape [2, 4, 5, 6], found [2, 4, 5, 8]");
    EXPECT_EQ(message_of<ShapeError>([&] { attention_backward(y.output, in.query, in.key, in.value, {}); }),
              "[attention_backward] expected the output of forward of shape [2, 4, 5, 6], found [0]");
}

TEST(LinearAttentionErrors, KeyLengths) {
    const Inputs in;
    EXPECT_EQ(message_of<ShapeError>([&] { linear_attention(in.query, in.key, in.value, {.key_lengths = {1}}); }),
              "[linear_attention] expected 2 key lengths, one for each sequence, found 1");
}

// A file of a few hundred bytes can hold such shapes: they must not cost time or memory.
TEST(AttentionErrors, HugeShapesWithoutElements) {
    constexpr std::int64_t kHuge = std::int64_t{1} << 50;
    for (const Shape& shape : {Shape{1, kHuge, 0, 4}, Shape{kHuge, 1, 0, 4}, Shape{1, 1, std::int64_t{1} << 33, 0},
                               Shape{1, 1, 0, std::int64_t{1} << 60}, Shape{1 << 20, 1 << 20, 1 << 20, 0}}) {
        const TensorView view(nullptr, DType::float32, shape, Shape{0, 0, 0, 0});
        EXPECT_NE(message_of<ShapeError>([&] { attention(view, view, view); }).find("without elements"),
                  std::string::npos);
        EXPECT_NE(message_of<ShapeError>([&] { attended_keys(view, view); }).find("without elements"),
                  std::string::npos);
    }
}

}  // namespace
}  // namespace attend::testing
