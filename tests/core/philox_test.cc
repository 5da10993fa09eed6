#include "tests/support/compare.h"

#include <attend/core/error.h>
#include <attend/core/philox.h>

#include <gtest/gtest.h>

#include <cmath>

namespace attend::testing {
namespace {

// Known answers of the authors' Random123 (kat_vectors, philox4x32-10).
TEST(Philox, KnownAnswers) {
    using Words = std::array<std::uint32_t, 4>;
    EXPECT_EQ(philox4x32({0, 0, 0, 0}, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, 0xffffffffffffffff),
              (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
    EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822),
              (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, NumbersDependOnThePositionOnly) {
    const Tensor whole = randn({1000}, {.seed = 7});
    const Tensor part = randn({36}, {.seed = 7, .position = 400});
    EXPECT_TRUE(same_bits(part, whole.view().slice(0, 400, 436).clone()));
    EXPECT_FALSE(same_bits(randn({1000}, {.seed = 8}), whole));
    EXPECT_THROW(randn({4}, {.position = 2}), ValueError);
    EXPECT_THROW(rand({4}, {.dtype = DType::int32}), DTypeError);
}

TEST(Philox, Distributions) {
    const std::vector<double> normal_values = values(randn({100000}, {.seed = 1}));
    double mean = 0.0;
    double square = 0.0;
    double fourth = 0.0;
    for (const double x : normal_values) {
        mean += x / 100000;
        square += x * x / 100000;
        fourth += x * x * x * x / 100000;
    }
    EXPECT_NEAR(mean, 0.0, 0.015);
    EXPECT_NEAR(square, 1.0, 0.02);
    EXPECT_NEAR(fourth, 3.0, 0.15);
    for (const DType dtype : {DType::float32, DType::float64}) {
        double sum = 0.0;
        for (const double x : values(rand({100000}, {.seed = 2, .dtype = dtype}))) {
            EXPECT_GE(x, 0.0);
            EXPECT_LT(x, 1.0);
            sum += x;
        }
        EXPECT_NEAR(sum / 100000, 0.5, 0.005);
    }
}

}  // namespace
}  // namespace attend::testing
