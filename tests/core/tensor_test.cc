#include "tests/support/compare.h"

#include <attend/core/error.h>
#include <attend/core/tensor.h>

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>

namespace attend::testing {

static_assert(!std::is_constructible_v<MutableTensorView, const float*, Shape>, "const elements stay const");
namespace {

Tensor counted(const Shape& shape) {
    return arange(shape.numel()).view().reshape(shape).clone();
}

TEST(Shape, CountsAndChecks) {
    EXPECT_EQ((Shape{2, 3, 4}).numel(), 24);
    EXPECT_EQ(Shape{}.numel(), 1);
    EXPECT_EQ((Shape{std::int64_t{1} << 62, 0, 8}).numel(), 0);
    EXPECT_THROW((Shape{std::int64_t{1} << 62, 8}).numel(), ShapeError);
    EXPECT_THROW((Shape{-1}).numel(), ShapeError);
    EXPECT_THROW((Shape{1, 1, 1, 1, 1, 1, 1, 1, 1}), ShapeError);
    EXPECT_EQ(to_string(Shape{2, 8, 77, 64}), "[2, 8, 77, 64]");
    check_empty_shape("x", "a tensor", {std::int64_t{1} << 22, 0, 1});
    EXPECT_THROW(check_empty_shape("x", "a tensor", {std::int64_t{1} << 22, 0, 2}), ShapeError);
    check_empty_shape("x", "a tensor", {std::int64_t{1} << 22, 0, std::int64_t{1} << 34}, 2);
    EXPECT_THROW(check_empty_shape("x", "a tensor", {std::int64_t{1} << 22, 2, 0}, 2), ShapeError);
    EXPECT_THROW(check_empty_shape("x", "a tensor", {std::int64_t{1} << 22, 0, std::int64_t{1} << 35}, 2), ShapeError);
}

TEST(Tensor, OwnsAlignedElements) {
    for (const std::int64_t n : {1, 3, 1000}) {
        const Tensor t({n}, DType::int8);
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(t.data()) % 64, 0U);
        EXPECT_EQ(t.item({n - 1}), 0.0);
    }
    EXPECT_EQ(Tensor().numel(), 0);
    EXPECT_EQ(Tensor({0, 5}).data(), nullptr);
    EXPECT_THROW(Tensor({-1}), ShapeError);
    EXPECT_THROW(Tensor({std::int64_t{1} << 62}, DType::float64), ShapeError);
}

TEST(Tensor, CopiesElementsAndMovesThem) {
    Tensor a = Tensor::from<float>({1, 2, 3});
    const Tensor b = a;
    a.at<float>({0}) = 9;
    EXPECT_EQ(b.at<float>({0}), 1);
    const void* address = a.data();
    const Tensor c = std::move(a);
    EXPECT_EQ(c.data(), address);
    EXPECT_EQ(a.numel(), 0);  // NOLINT(bugprone-use-after-move): what is left is empty
    Tensor d;
    d = c;
    EXPECT_TRUE(same_bits(d, c));
    const Tensor r = std::move(d).reshaped({3, 1});
    EXPECT_EQ(r.shape(), (Shape{3, 1}));
}

TEST(Tensor, FromValues) {
    EXPECT_EQ(Tensor::from<double>({1, 2, 3, 4}, Shape{2, -1}).shape(), (Shape{2, 2}));
    EXPECT_THROW(Tensor::from<double>({1, 2, 3}, Shape{2, 2}), ShapeError);
    EXPECT_EQ(Tensor::from(std::vector<std::int32_t>{1, 2}).dtype(), DType::int32);
    EXPECT_EQ(full({2}, 3.5, DType::float16).item({1}), 3.5);
    EXPECT_EQ(ones_like(zeros({2, 2}, DType::int8)).item({1, 1}), 1.0);
    EXPECT_EQ(arange(3, DType::float32).at<float>({2}), 2.0F);
}

TEST(TensorView, SharesElements) {
    Tensor t = counted({2, 3, 4});
    const MutableTensorView rows = t.view().slice(1, 1, 3).transpose(1, 2);
    EXPECT_EQ(rows.shape(), (Shape{2, 4, 2}));
    rows.at<std::int64_t>({1, 3, 0}) = -5;
    EXPECT_EQ(t.at<std::int64_t>({1, 1, 3}), -5);
}

TEST(TensorView, Slices) {
    const Tensor t = counted({10});
    EXPECT_EQ(values(t.view().slice(0, 2, 9, 3)), (std::vector<double>{2, 5, 8}));
    EXPECT_EQ(values(t.view().slice(0, -3, 100)), (std::vector<double>{7, 8, 9}));
    EXPECT_EQ(values(t.view().slice(0, -100, -8)), (std::vector<double>{0, 1}));
    EXPECT_EQ(t.view().slice(0, 7, 3).numel(), 0);
    EXPECT_EQ(t.view().slice(0, 100, 200).numel(), 0);
    EXPECT_THROW(t.view().slice(0, 0, 1, 0), ValueError);
    EXPECT_THROW(t.view().slice(1, 0, 1), ValueError);
    EXPECT_EQ(counted({3, 4}).view().select(0, -1).item({2}), 10.0);
    EXPECT_THROW(t.view().select(0, 10), ValueError);
}

TEST(TensorView, TransposesAndPermutes) {
    const Tensor t = counted({2, 3, 4});
    EXPECT_EQ(t.view().transpose(0, -1).item({3, 1, 1}), t.item({1, 1, 3}));
    EXPECT_EQ(t.view().permute({2, 0, 1}).shape(), (Shape{4, 2, 3}));
    EXPECT_EQ(t.view().permute({2, 0, 1}).item({3, 1, 2}), t.item({1, 2, 3}));
    EXPECT_THROW(t.view().permute({0, 0, 1}), ValueError);
    EXPECT_THROW(t.view().permute({0, 1}), ValueError);
    EXPECT_THROW(t.view().transpose(0, 3), ValueError);
}

TEST(TensorView, ReshapesWithoutCopies) {
    const Tensor t = counted({2, 3, 4});
    EXPECT_EQ(t.view().reshape({6, -1}).item({5, 3}), 23.0);
    EXPECT_EQ(t.view().transpose(0, 1).reshape({3, 2, 2, 2}).item({2, 1, 1, 0}), t.item({1, 2, 2}));
    EXPECT_EQ(t.view().slice(2, 0, 2).reshape({6, 2}).item({5, 1}), t.item({1, 2, 1}));
    EXPECT_EQ(t.view().unsqueeze(1).unsqueeze(-1).shape(), (Shape{2, 1, 3, 4, 1}));
    EXPECT_EQ(t.view().transpose(1, 2).reshape({2, 4, 1, 3}).item({1, 3, 0, 2}), t.item({1, 2, 3}));
    EXPECT_THROW(t.view().transpose(1, 2).reshape({24}), ShapeError);
    EXPECT_THROW(t.view().reshape({5, 5}), ShapeError);
    EXPECT_THROW(t.view().reshape({-1, -1}), ShapeError);
    EXPECT_THROW(zeros({0, 3}).view().reshape({0, -1}), ShapeError);
    EXPECT_EQ(zeros({0, 3}).view().reshape({3, 0}).shape(), (Shape{3, 0}));
}

// Every view that reshape grants holds the elements of the copy that it spares.
TEST(TensorView, ReshapeEqualsReshapeOfACopy) {
    const Tensor t = counted({4, 6, 2, 3});
    const std::vector<TensorView> views{t.view(),
                                        t.view().transpose(0, 1),
                                        t.view().permute({3, 0, 1, 2}),
                                        t.view().slice(1, 1, 5, 2),
                                        t.view().slice(0, 1, 2),
                                        t.view().slice(3, 0, 1)};
    int granted = 0;
    for (const TensorView& view : views) {
        const std::int64_t n = view.numel();
        for (const Shape& shape :
             {Shape{n}, Shape{2, n / 2}, Shape{n / 3, 3}, Shape{1, n / 6, 1, 6}, Shape{n / 2, 2, 1}}) {
            if (shape.numel() != n) continue;
            try {
                EXPECT_EQ(values(view.reshape(shape)), values(view.clone().view().reshape(shape)));
                ++granted;
            } catch (const ShapeError&) {
            }
        }
    }
    EXPECT_GT(granted, 10);
}

TEST(TensorView, Broadcasts) {
    const Tensor t = counted({3, 1});
    const TensorView wide = t.view().broadcast_to({2, 3, 4});
    EXPECT_EQ(wide.item({1, 2, 3}), 2.0);
    EXPECT_EQ(wide.stride(0), 0);
    EXPECT_FALSE(wide.is_contiguous());
    EXPECT_THROW(t.view().broadcast_to({3}), ShapeError);
    EXPECT_THROW(t.view().broadcast_to({2, 4}), ShapeError);
    EXPECT_EQ(t.view().squeeze(1).shape(), (Shape{3}));
    EXPECT_THROW(t.view().squeeze(0), ShapeError);
}

TEST(TensorView, ChecksTypesAndIndices) {
    const Tensor t = counted({2, 3});
    EXPECT_EQ(message_of<DTypeError>([&] { static_cast<void>(t.data<float>()); }),
              "[tensor] expected elements of type float32, found int64");
    EXPECT_EQ(message_of<ValueError>([&] {
                  static_cast<void>(t.at<std::int64_t>({0, 3}));
              }),
              "[tensor] expected index 1 in [0, 3), found 3");
    EXPECT_THROW(static_cast<void>(t.item({0})), ValueError);
    EXPECT_THROW(static_cast<void>(t.item()), ShapeError);
    EXPECT_THROW(static_cast<void>(t.size(2)), ValueError);
    EXPECT_EQ(t.size(-1), 3);
    EXPECT_THROW(TensorView(t.data(), DType::int64, {2, 3}, {3}), ShapeError);
}

TEST(MutableTensorView, CopiesAndFills) {
    Tensor t({2, 3});
    t.view().transpose(0, 1).copy_from(counted({3, 2}));
    EXPECT_EQ(values(t), (std::vector<double>{0, 2, 4, 1, 3, 5}));
    t.view().select(0, 1).fill(7.5);
    EXPECT_EQ(values(t), (std::vector<double>{0, 2, 4, 7.5, 7.5, 7.5}));
    t.view().copy_from(Tensor::from<std::int32_t>({1, 2, 3}));
    EXPECT_EQ(values(t), (std::vector<double>{1, 2, 3, 1, 2, 3}));
    EXPECT_THROW(t.view().copy_from(zeros({4})), ShapeError);
    Tensor scalar = zeros({});
    scalar.view().fill(2.0);
    EXPECT_EQ(scalar.item(), 2.0);
}

// A view with negative strides runs backwards.
TEST(TensorView, NegativeStrides) {
    const Tensor t = counted({4});
    const TensorView reversed(t.data<std::int64_t>() + 3, DType::int64, {4}, {-1});
    EXPECT_EQ(values(reversed), (std::vector<double>{3, 2, 1, 0}));
    EXPECT_EQ(values(reversed.slice(0, 1, 3)), (std::vector<double>{2, 1}));
}

}  // namespace
}  // namespace attend::testing
