#include <attend/core/error.h>
#include <attend/core/philox.h>
#include <attend/core/tensor.h>
#include <attend/core/threads.h>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace attend {
namespace {

TEST(Tensor, ViewsShareElements) {
    Tensor t = arange(24).view().reshape({2, 3, 4}).clone();
    const MutableTensorView rows = t.view().slice(1, 1, 3).transpose(1, 2);
    EXPECT_EQ(rows.shape(), (Shape{2, 4, 2}));
    rows.at<std::int64_t>({1, 3, 0}) = -5;
    EXPECT_EQ(t.at<std::int64_t>({1, 1, 3}), -5);
}

}  // namespace
}  // namespace attend
