// Colours, limits and pooling against oracles that do each the long way.
#include <attend/core/error.h>
#include <attend/viz/cells.h>
#include <attend/viz/colormap.h>
#include <attend/viz/heatmap.h>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace {

using namespace attend;
using viz::Color;
using viz::Colormap;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(Colormap, HasMatplotlibsEntries) {
    EXPECT_EQ(viz::color_at(Colormap::viridis, 0.0), (Color{68, 1, 84}));
    EXPECT_EQ(viz::color_at(Colormap::viridis, 1.0), (Color{253, 231, 36}));
    EXPECT_EQ(viz::color_at(Colormap::viridis, 255.0 / 256.0), (Color{253, 231, 36}));
    EXPECT_NE(viz::color_at(Colormap::viridis, 0.996), (Color{253, 231, 36}));
    EXPECT_EQ(viz::color_at(Colormap::viridis, 0.5), (Color{32, 144, 140}));
    EXPECT_EQ(viz::color_at(Colormap::gray, 0.5), (Color{128, 128, 128}));
    EXPECT_EQ(viz::color_at(Colormap::gray, -3.0), (Color{0, 0, 0}));
    EXPECT_EQ(viz::color_at(Colormap::gray, 7.0), (Color{255, 255, 255}));
}

TEST(Colormap, PlacesValuesBetweenTheLimits) {
    EXPECT_EQ(viz::color_of(Colormap::gray, 2.0, {1.0, 3.0}), viz::color_at(Colormap::gray, 0.5));
    EXPECT_EQ(viz::color_of(Colormap::gray, -kInf, {1.0, 3.0}), (Color{0, 0, 0}));
    EXPECT_EQ(viz::color_of(Colormap::gray, kInf, {1.0, 3.0}), (Color{255, 255, 255}));
    EXPECT_EQ(viz::color_of(Colormap::gray, 0.0, {-1.7e308, 1.7e308}), viz::color_at(Colormap::gray, 0.5));
}

TEST(Colormap, NamesAreListedWhenOneIsUnknown) {
    for (const std::string& name : viz::colormap_names()) EXPECT_NO_THROW(viz::colormap_named(name));
    try {
        viz::colormap_named("jet");
        FAIL();
    } catch (const ValueError& error) {
        EXPECT_EQ(error.detail(),
                  "expected a colormap of viridis, cividis, magma, gray, coolwarm, diverging, found 'jet'");
    }
}

TEST(Pooling, TakesTheMaximumOfEachBlock) {
    std::mt19937 random(7);
    std::normal_distribution<double> normal;
    for (const std::int64_t n : {1, 5, 257, 1000}) {
        Tensor map(Shape{n, n + 3}, DType::float64);
        for (std::int64_t i = 0; i < map.numel(); ++i) map.data<double>()[i] = normal(random);
        const viz::Cells cells = viz::pooled(map, {}, 97, 120);
        ASSERT_EQ(cells.rows, std::min<std::int64_t>(n, 97));
        ASSERT_EQ(cells.columns, std::min<std::int64_t>(n + 3, 120));
        // Every cell belongs to one block: the largest block is no more than one larger than the smallest.
        std::vector<double> expected(cells.values.size(), -kInf);
        std::vector<int> sizes(cells.values.size(), 0);
        for (std::int64_t row = 0; row < n; ++row) {
            for (std::int64_t column = 0; column < n + 3; ++column) {
                std::int64_t block_row = 0;
                while ((block_row + 1) * n <= row * cells.rows) ++block_row;
                std::int64_t block_column = 0;
                while ((block_column + 1) * (n + 3) <= column * cells.columns) ++block_column;
                const std::size_t at = cells.index(block_row, block_column);
                expected[at] = std::max(expected[at], map.item({row, column}));
                ++sizes[at];
            }
        }
        EXPECT_EQ(cells.values, expected) << n;
        for (const int size : sizes) EXPECT_GE(size, 1);
    }
}

TEST(Pooling, LeavesALoneSpikeVisibleWhereverItIs) {
    std::mt19937 random(3);
    for (int i = 0; i < 20; ++i) {
        Tensor map(Shape{1000, 1000}, DType::float32);
        const auto row = static_cast<std::int64_t>(random() % 1000);
        const auto column = i == 0 ? 0 : i == 1 ? 999 : static_cast<std::int64_t>(random() % 1000);
        map.at<float>({row, column}) = 1.0F;
        const viz::Pixels pixels = viz::heatmap(map, {}).pixels();
        int bright = 0;
        for (int y = 50; y < 440; ++y) {
            for (int x = 100; x < 480; ++x) {
                const std::uint8_t* pixel = &pixels.rgba[4 * static_cast<std::size_t>(y * pixels.width + x)];
                bright += pixel[0] == 253 && pixel[1] == 231 && pixel[2] == 36 ? 1 : 0;
            }
        }
        EXPECT_GE(bright, 1) << row << ", " << column;
        EXPECT_LE(bright, 4) << row << ", " << column;
    }
}

TEST(Pooling, TellsMaskedFromZeroAndFromNan) {
    const Tensor map = Tensor::from({0.0, kNan, -kInf, 3.0}, Shape{1, 4});
    const Tensor mask = Tensor::from<bool>({true, true, true, false}, Shape{1, 4});
    const viz::Cells cells = viz::pooled(map, mask.view(), 1, 4);
    EXPECT_EQ(cells.masked, (std::vector<std::uint8_t>{0, 0, 1, 1}));
    EXPECT_EQ(cells.values[0], 0.0);
    EXPECT_TRUE(std::isnan(cells.values[1]));
    const viz::CellImage image = viz::colored(cells, {0, 0, 4, 1}, Colormap::viridis, {0.0, 1.0});
    EXPECT_EQ(image.rgba[3], 255);
    EXPECT_EQ(image.rgba[7], 0);
    EXPECT_EQ(image.rgba[11], 0);
    EXPECT_EQ(image.rgba[15], 0);
    const std::vector<viz::Box> hatched = viz::masked_boxes(cells, {0.0, 0.0, 400.0, 100.0});
    ASSERT_EQ(hatched.size(), 1U);
    EXPECT_NEAR(hatched[0].left, 200.0, 1.0);
    EXPECT_NEAR(hatched[0].right, 400.0, 1e-9);
    // What is masked has no say in the limits; what has a value shows through what is pooled with it.
    EXPECT_EQ(viz::value_limits(map, mask.view())->high, 0.0);
    const viz::Cells one = viz::pooled(map, mask.view(), 1, 1);
    EXPECT_EQ(one.values[0], 0.0);
    EXPECT_EQ(one.masked[0], 0);
}

TEST(Pooling, JoinsMaskedRunsOfEqualRows) {
    Tensor mask(Shape{100, 100}, DType::boolean);
    for (std::int64_t i = 0; i < 100; ++i) {
        for (std::int64_t j = 0; j < 100; ++j) mask.at<bool>({i, j}) = j < 40 || (j > 60 && i < 50);
    }
    const Tensor map(Shape{100, 100}, DType::float32);
    EXPECT_EQ(viz::masked_boxes(viz::pooled(map, mask.view(), 100, 100), {0, 0, 100, 100}).size(), 2U);
}

TEST(Pooling, MaskedCellsAreHatchedGrayInThePicture) {
    Tensor weights(Shape{2, 2}, DType::float32);
    weights.at<float>({1, 0}) = 1.0F;
    viz::HeatmapOptions options;
    const Tensor mask = Tensor::from<bool>({true, false, true, true}, Shape{2, 2});
    options.mask = mask.view();
    const viz::Pixels pixels = viz::heatmap(weights, options).pixels();
    int gray = 0;
    int dark = 0;
    for (int y = 70; y < 230; ++y) {
        for (int x = 300; x < 470; ++x) {
            const std::uint8_t* pixel = &pixels.rgba[4 * static_cast<std::size_t>(y * pixels.width + x)];
            ASSERT_EQ(pixel[0], pixel[1]);
            ASSERT_EQ(pixel[0], pixel[2]);
            gray += pixel[0] > 200 ? 1 : 0;
            dark += pixel[0] < 180 ? 1 : 0;
        }
    }
    EXPECT_GT(gray, 10000);
    EXPECT_GT(dark, 1000);
}

TEST(Limits, AreTheDatasUnlessGiven) {
    const Tensor map = Tensor::from({0.25, 0.5, kInf, kNan}, Shape{2, 2});
    const auto first_pixel = [&](const viz::HeatmapOptions& options) {
        const std::vector<std::uint8_t> rgba = viz::heatmap(map, options).scene().images[0].rgba;
        return Color{rgba[0], rgba[1], rgba[2]};
    };
    EXPECT_EQ(first_pixel({}), (Color{68, 1, 84}));
    viz::HeatmapOptions options;
    options.vmin = 0.0;
    EXPECT_EQ(first_pixel(options), viz::color_at(Colormap::viridis, 0.5));
    options.vmax = 0.25;
    EXPECT_EQ(first_pixel(options), (Color{253, 231, 36}));
    // Equal cells take the middle colour, as matplotlib has it.
    const Tensor equal = Tensor::from({0.0, 0.0}, Shape{1, 2});
    const std::vector<std::uint8_t> rgba = viz::heatmap(equal, {}).scene().images[0].rgba;
    EXPECT_EQ((Color{rgba[0], rgba[1], rgba[2]}), viz::color_at(Colormap::viridis, 0.5));
}

}  // namespace
