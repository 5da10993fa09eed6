// Numbers as text, whatever the locale.
#include "tests/support/comma_locale.h"

#include <attend/core/number_text.h>

#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <limits>

namespace attend {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(NumberText, IsTheShortestThatReadsBack) {
    EXPECT_EQ(number_text(0.1), "0.1");
    EXPECT_EQ(number_text(0.1F), "0.1");
    EXPECT_EQ(number_text(static_cast<double>(0.1F)), "0.10000000149011612");
    EXPECT_EQ(number_text(-1e-9), "-1e-09");
    EXPECT_EQ(number_text(1.0 + 1e-9), "1.000000001");
    EXPECT_EQ(number_text(10000.0), "10000");
    EXPECT_EQ(number_text(-0.0), "-0");
    EXPECT_EQ(number_text(kInfinity), "inf");
    EXPECT_EQ(number_text(-kInfinity), "-inf");
    EXPECT_EQ(number_text(-kNan), "nan");
    for (const double value : {1.0 / 3.0, 1.7976931348623157e308, -5e-324, 123456789.0}) {
        EXPECT_EQ(std::strtod(number_text(value).c_str(), nullptr), value);
    }
}

TEST(NumberText, HasDigitsAsTheCLibraryWritesThem) {
    const auto printed = [](const char* format, int digits, double value) {
        std::array<char, 1024> text{};
        std::snprintf(text.data(), text.size(), format, digits, value);
        return std::string(text.data());
    };
    for (const double value : {0.0, -0.0, 0.5, 1.5, 2.5, 0.125, -9.995, 1.0 / 3.0, 1e22, 1.7976931348623157e308,
                               -5e-324, kInfinity, -kInfinity}) {
        for (const int digits : {-1, 0, 1, 2, 6, 17, 400}) {
            EXPECT_EQ(fixed_text(value, digits), printed("%.*f", digits, value));
            EXPECT_EQ(scientific_text(value, digits), printed("%.*e", digits, value));
        }
    }
    EXPECT_EQ(fixed_text(kNan, 2), "nan");
    EXPECT_EQ(scientific_text(-kNan, 2), "nan");
}

TEST(NumberText, DoesNotFollowTheLocale) {
    const testing::CommaLocale locale;
    EXPECT_EQ(number_text(0.25), "0.25");
    EXPECT_EQ(number_text(0.25F), "0.25");
    EXPECT_EQ(number_text(12345.5), "12345.5");
    EXPECT_EQ(fixed_text(12345.5, 2), "12345.50");
    EXPECT_EQ(scientific_text(12345.5, 3), "1.235e+04");
}

}  // namespace
}  // namespace attend
