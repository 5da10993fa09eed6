// Conversions: rounding to nearest even, NaN and infinities kept, saturation.
#include <attend/core/element.h>
#include <attend/core/tensor.h>

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace attend {
namespace {

// Every value of both formats survives the way to float and back, and double in between.
TEST(Half, EveryValueSurvives) {
    for (std::uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
        const auto b = bfloat16::from_bits(static_cast<std::uint16_t>(bits));
        const auto h = float16::from_bits(static_cast<std::uint16_t>(bits));
        if (std::isnan(static_cast<float>(b))) {
            EXPECT_TRUE(std::isnan(static_cast<float>(bfloat16(static_cast<float>(b)))));
        } else {
            EXPECT_EQ(bfloat16(static_cast<float>(b)).bits, bits);
            EXPECT_EQ(bfloat16(static_cast<double>(b)).bits, bits);
        }
        if (std::isnan(static_cast<float>(h))) {
            EXPECT_TRUE(std::isnan(static_cast<float>(float16(static_cast<float>(h)))));
        } else {
            EXPECT_EQ(float16(static_cast<float>(h)).bits, bits);
            EXPECT_EQ(float16(static_cast<double>(h)).bits, bits);
        }
    }
}

/// The neighbour of x that is nearest, by search over all finite values; ties to the even one.
template <typename Half>
std::uint16_t nearest(double x) {
    std::uint16_t best = 0;
    double distance = std::numeric_limits<double>::infinity();
    for (std::uint32_t bits = 0; bits <= 0xFFFF; ++bits) {
        const double value = static_cast<double>(Half::from_bits(static_cast<std::uint16_t>(bits)));
        if (!std::isfinite(value) || std::signbit(value) != std::signbit(x)) continue;
        const double d = std::fabs(value - x);
        if (d < distance || (d == distance && bits % 2 == 0)) {
            distance = d;
            best = static_cast<std::uint16_t>(bits);
        }
    }
    return best;
}

TEST(Half, RoundsToNearestEven) {
    for (const double x :
         {1.0 + 0x1p-8, 1.0 + 3 * 0x1p-8, 1.0 + 0x1p-11, 1.0 + 3 * 0x1p-11, -1.0 - 0x1p-11 - 0x1p-40, 3.14159, 1e-5,
          5.96e-8, 2.98e-8, 2.9802322387695312e-08, 2.99e-8, 6.1e-5, 65504.0, 65519.0, 0.1, 1e-40}) {
        EXPECT_EQ(bfloat16(x).bits, nearest<bfloat16>(x)) << x;
        EXPECT_EQ(bfloat16(static_cast<float>(x)).bits, nearest<bfloat16>(static_cast<double>(static_cast<float>(x))))
            << x;
        EXPECT_EQ(float16(x).bits, nearest<float16>(x)) << x;
        EXPECT_EQ(float16(static_cast<float>(x)).bits, nearest<float16>(static_cast<double>(static_cast<float>(x))))
            << x;
    }
    // Rounding a double by way of float would hit a tie that is none.
    EXPECT_EQ(bfloat16(1.0 + 0x1p-8 + 0x1p-40).bits, 0x3F81);
    EXPECT_EQ(float16(1.0 + 0x1p-11 + 0x1p-40).bits, 0x3C01);
    EXPECT_EQ(bfloat16(1.0 + 3 * 0x1p-8 - 0x1p-40).bits, 0x3F81);
}

TEST(Half, KeepsNaNAndInfinity) {
    const float inf = std::numeric_limits<float>::infinity();
    const float nan = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(bfloat16(inf).bits, 0x7F80);
    EXPECT_EQ(bfloat16(-inf).bits, 0xFF80);
    EXPECT_EQ(float16(inf).bits, 0x7C00);
    EXPECT_EQ(float16(-inf).bits, 0xFC00);
    EXPECT_EQ(float16(65520.0F).bits, 0x7C00);
    EXPECT_EQ(float16(1e300).bits, 0x7C00);
    EXPECT_EQ(bfloat16(-1e300).bits, 0xFF80);
    EXPECT_EQ(bfloat16(3.4e38F).bits, 0x7F80);
    EXPECT_TRUE(std::isnan(static_cast<float>(bfloat16(nan))));
    EXPECT_TRUE(std::isnan(static_cast<float>(float16(nan))));
    // A signalling NaN whose payload lies in the bits that are cut off.
    const float signalling = std::bit_cast<float>(std::uint32_t{0x7F800001});
    EXPECT_TRUE(std::isnan(static_cast<float>(bfloat16(signalling))));
    EXPECT_TRUE(std::isnan(static_cast<float>(float16(signalling))));
    EXPECT_TRUE(std::isnan(static_cast<double>(bfloat16(static_cast<double>(nan)))));
}

TEST(Conversion, BetweenAllTypes) {
    constexpr DType kAll[] = {DType::float32, DType::float64, DType::bfloat16, DType::float16,
                              DType::int8,    DType::int32,   DType::int64,    DType::boolean};
    for (const DType from : kAll) {
        for (const DType to : kAll) {
            const Tensor source = Tensor::from<double>({0.0, 1.0, 1.0}).to(from);
            const Tensor found = source.to(to);
            EXPECT_EQ(found.dtype(), to);
            EXPECT_EQ(found.item({0}), 0.0);
            EXPECT_EQ(found.item({2}), 1.0);
        }
    }
}

TEST(Conversion, SaturatesAndTruncates) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const double inf = std::numeric_limits<double>::infinity();
    const Tensor x = Tensor::from<double>({1.9, -1.9, 1e10, -1e30, nan, inf});
    const Tensor i8 = x.to(DType::int8);
    const Tensor i64 = x.to(DType::int64);
    EXPECT_EQ(i8.at<std::int8_t>({0}), 1);
    EXPECT_EQ(i8.at<std::int8_t>({1}), -1);
    EXPECT_EQ(i8.at<std::int8_t>({2}), 127);
    EXPECT_EQ(i8.at<std::int8_t>({3}), -128);
    EXPECT_EQ(i8.at<std::int8_t>({4}), 0);
    EXPECT_EQ(i64.at<std::int64_t>({2}), 10000000000);
    EXPECT_EQ(i64.at<std::int64_t>({3}), std::numeric_limits<std::int64_t>::min());
    EXPECT_EQ(i64.at<std::int64_t>({5}), std::numeric_limits<std::int64_t>::max());
    EXPECT_EQ(x.to(DType::boolean).item({4}), 1.0);  // NaN is not 0
    const Tensor wide = Tensor::from<std::int64_t>({(std::int64_t{1} << 53) + 1, 300});
    EXPECT_EQ(wide.to(DType::int64).at<std::int64_t>({0}), (std::int64_t{1} << 53) + 1);
    EXPECT_EQ(wide.to(DType::int8).at<std::int8_t>({1}), 44);
}

}  // namespace
}  // namespace attend
