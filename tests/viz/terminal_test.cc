#include "tests/support/comma_locale.h"

#include <attend/core/error.h>
#include <attend/viz/terminal.h>

#include <gtest/gtest.h>

#include <sstream>

namespace {

using namespace attend;

Tensor weights() {
    return Tensor::from({1.0F, 0.0F, 0.25F, 0.75F}, Shape{2, 2});
}

TEST(Terminal, DrawsLabelsValuesAndShades) {
    viz::HeatmapOptions options;
    options.rows = {"I", "机器"};
    options.columns = {"I", "Like"};
    const Tensor mask = Tensor::from<bool>({true, false, true, true}, Shape{2, 2});
    options.mask = mask.view();
    EXPECT_EQ(viz::terminal_heatmap(weights(), options, {80, false}),
              "Attention Weights\n"
              "      I     Like\n"
              "   I  1.00█╱╱╱╱╱╱\n"
              "机器  0.25  0.75▓\n"
              "0.25   ░░░░░▒▒▒▒▒▓▓▓▓▓███ 1.00   ╱ masked\n");
}

TEST(Terminal, DrawsColours) {
    const std::string text = viz::terminal_heatmap(weights(), {}, {80, true});
    EXPECT_NE(text.find("\x1b[48;2;253;231;36m\x1b[38;2;0;0;0m 1.00 \x1b[0m"), std::string::npos) << text;
    EXPECT_NE(text.find("\x1b[48;2;68;1;84m\x1b[38;2;255;255;255m 0.00 \x1b[0m"), std::string::npos) << text;
}

TEST(Terminal, PoolsWhatDoesNotFitAndSaysSo) {
    Tensor map(Shape{300, 300}, DType::float32);
    map.at<float>({123, 45}) = 1.0F;
    const std::string text = viz::terminal_heatmap(map, {}, {60, false});
    EXPECT_NE(text.find("█"), text.rfind("█")) << "the spike, and the legend's";
    EXPECT_NE(text.find("Each block: the maximum of up to 6 x 6 cells."), std::string::npos) << text;
    std::istringstream lines(text);
    std::string line;
    while (std::getline(lines, line)) {
        int columns = 0;
        for (const char c : line) columns += (static_cast<unsigned char>(c) & 0xC0U) != 0x80U ? 1 : 0;
        EXPECT_LE(columns, 60) << line;
    }
}

TEST(Terminal, DrawsEveryMapOfAGrid) {
    const Tensor grid(Shape{2, 2, 1, 1});
    const std::string text = viz::terminal_heatmap(grid, {}, {40, false});
    EXPECT_NE(text.find("Layer 0, head 0\n"), std::string::npos);
    EXPECT_NE(text.find("Layer 1, head 1\n"), std::string::npos);
    EXPECT_THROW(viz::terminal_heatmap(Tensor(Shape{3})), ShapeError);
}

TEST(Terminal, ShowsNegativeValues) {
    EXPECT_EQ(viz::terminal_heatmap(Tensor::from({-1.5F, 2.0F}, Shape{1, 2}), {.title = ""}, {80, false}),
              "   0      1\n"
              "0  -1.50  2.00█\n"
              "-1.50   ░░░░░▒▒▒▒▒▓▓▓▓▓███ 2.00\n");
}

TEST(Terminal, DoesNotFollowTheLocale) {
    const std::string text = viz::terminal_heatmap(weights(), {}, {80, false});
    const std::string large = viz::terminal_heatmap(Tensor::from({0.0F, 2000.0F}, Shape{1, 2}), {}, {80, false});
    const attend::testing::CommaLocale locale;
    EXPECT_EQ(viz::terminal_heatmap(weights(), {}, {80, false}), text);
    EXPECT_EQ(viz::terminal_heatmap(Tensor::from({0.0F, 2000.0F}, Shape{1, 2}), {}, {80, false}), large);
}

TEST(Terminal, ShowsSmallWeights) {
    const auto drawn = [](std::initializer_list<float> values, int columns) {
        const Tensor map = Tensor::from(values, Shape{1, static_cast<std::int64_t>(values.size())});
        return viz::terminal_heatmap(map, {.title = ""}, {columns, false});
    };
    EXPECT_EQ(drawn({0.0F, 0.004F}, 80),
              "   0       1\n"
              "0  0.0000  0.0040█\n"
              "0.0000   ░░░░░▒▒▒▒▒▓▓▓▓▓███ 0.0040\n");
    EXPECT_EQ(drawn({0.0F, -0.0003F}, 80),
              "   0         1\n"
              "0  0.00000█  -0.00030\n"
              "-0.00030   ░░░░░▒▒▒▒▒▓▓▓▓▓███ 0.00000\n");
    EXPECT_EQ(drawn({0.0F, 0.00003F}, 80),
              "   0        1\n"
              "0  0.0e+00  3.0e-05█\n"
              "0.0e+00   ░░░░░▒▒▒▒▒▓▓▓▓▓███ 3.0e-05\n");
    // What tells the cells apart, where they are far from 0.
    EXPECT_EQ(drawn({5.0F, 5.004F}, 80),
              "   0       1\n"
              "0  5.0000  5.0040█\n"
              "5.0000   ░░░░░▒▒▒▒▒▓▓▓▓▓███ 5.0040\n");
    // One digit where there is no room for two, and the shade where there is none at all.
    EXPECT_EQ(drawn({0.0F, 0.004F}, 17),
              "   0      1\n"
              "0  0.000  0.004█\n"
              "0.000   ░░░░░▒▒▒▒▒▓▓▓▓▓███ 0.004\n");
    EXPECT_EQ(drawn({0.0F, 0.004F}, 10),
              "   0   1\n"
              "0     ████\n"
              "0.0000   ░░░░░▒▒▒▒▒▓▓▓▓▓███ 0.0040\n");
}

TEST(Terminal, DrawsInTheNarrowest) {
    for (const int columns : {1, 2, 5, 10}) {
        EXPECT_NO_THROW(viz::terminal_heatmap(Tensor(Shape{7, 7}), {}, {columns, false})) << columns;
    }
}

}  // namespace
