// Where everything goes, against matplotlib's own boxes (tests/data/viz_geometry.json): edges within a pixel, texts
// within three pixels at 100 dots per inch.
#include <attend/viz/heatmap.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>

namespace {

using namespace attend;
using nlohmann::json;
using viz::Role;

const json& goldens() {
    static const json loaded = [] {
        std::ifstream file(ATTEND_TEST_DATA "/viz_geometry.json");
        return json::parse(file);
    }();
    return loaded.at("cases");
}

Tensor ramp(std::int64_t rows, std::int64_t columns, double low, double high) {
    Tensor weights(Shape{rows, columns}, DType::float64);
    const std::int64_t count = weights.numel();
    for (std::int64_t i = 0; i < count; ++i) {
        weights.data<double>()[i] = low + (high - low) * static_cast<double>(i) / static_cast<double>(count - 1);
    }
    return weights;
}

viz::Scene scene_of(const json& golden) {
    viz::HeatmapOptions options;
    options.width = golden.at("width").get<double>();
    options.height = golden.at("height").get<double>();
    options.dpi = golden.at("dpi").get<double>();
    const Tensor weights = ramp(golden.at("rows").get<std::int64_t>(), golden.at("columns").get<std::int64_t>(),
                                golden.at("vmin").get<double>(), golden.at("vmax").get<double>());
    return viz::heatmap(weights, options).scene();
}

void expect_box(const viz::Box& found, const json& expected, double tolerance, const std::string& what) {
    EXPECT_NEAR(found.left, expected[0].get<double>(), tolerance) << what << ", left";
    EXPECT_NEAR(found.top, expected[1].get<double>(), tolerance) << what << ", top";
    EXPECT_NEAR(found.right, expected[2].get<double>(), tolerance) << what << ", right";
    EXPECT_NEAR(found.bottom, expected[3].get<double>(), tolerance) << what << ", bottom";
}

std::vector<viz::Text> texts_of(const viz::Scene& scene, Role role) {
    std::vector<viz::Text> found;
    for (const viz::Text& text : scene.texts) {
        if (text.role == role) found.push_back(text);
    }
    return found;
}

void expect_ticks(const viz::Scene& scene, Role role, const json& expected, double tolerance, const std::string& what) {
    const std::vector<viz::Text> found = texts_of(scene, role);
    ASSERT_EQ(found.size(), expected.size()) << what;
    for (std::size_t i = 0; i < found.size(); ++i) {
        EXPECT_EQ(found[i].content, expected[i].at("label").get<std::string>()) << what;
        expect_box(viz::box_of(scene, found[i]), expected[i].at("box"), tolerance, what + " " + found[i].content);
    }
}

TEST(Geometry, IsMatplotlibs) {
    ASSERT_GE(goldens().size(), 9U);
    for (const json& golden : goldens()) {
        const viz::Scene scene = scene_of(golden);
        const double dpi = golden.at("dpi").get<double>();
        const std::string name = golden.at("rows").dump() + "x" + golden.at("columns").dump() + " " +
                                 golden.at("width").dump() + "x" + golden.at("height").dump() + " " +
                                 golden.at("vmax").dump();
        SCOPED_TRACE(name);
        const double edges = 1.0;
        const double texts = 3.0 * dpi / 100.0;
        ASSERT_EQ(scene.images.size(), 1U);
        expect_box(scene.images[0].box, golden.at("axes"), edges, "axes");
        ASSERT_TRUE(scene.bar.has_value());
        expect_box(scene.bar->box, golden.at("bar"), edges, "bar");
        expect_ticks(scene, Role::bar_tick, golden.at("bar_ticks"), texts, "bar tick");
        const std::string offset = golden.at("bar_offset").get<std::string>();
        const std::vector<viz::Text> offsets = texts_of(scene, Role::bar_offset);
        ASSERT_EQ(offsets.size(), offset.empty() ? 0U : 1U);
        if (!offset.empty()) {
            EXPECT_EQ(offsets[0].content, offset);
            expect_box(viz::box_of(scene, offsets[0]), golden.at("bar_offset_box"), texts, "offset");
        }
        expect_ticks(scene, Role::x_tick, golden.at("x_ticks"), texts, "x tick");
        expect_ticks(scene, Role::y_tick, golden.at("y_ticks"), texts, "y tick");
        for (const auto& [role, key] :
             {std::pair{Role::title, "title"}, {Role::x_label, "x_label"}, {Role::y_label, "y_label"}}) {
            const std::vector<viz::Text> found = texts_of(scene, role);
            ASSERT_EQ(found.size(), 1U);
            expect_box(viz::box_of(scene, found[0]), golden.at(key), texts, key);
        }
    }
}

/// The first case: the default figure.
TEST(Geometry, EdgesOfThePictureAreThePapers) {
    const viz::Pixels pixels = viz::heatmap(ramp(7, 7, 0.0, 1.0), {}).pixels();
    ASSERT_EQ(pixels.width, 640);
    ASSERT_EQ(pixels.height, 480);
    const auto dark = [&](int x, int y) {
        const std::uint8_t* pixel = &pixels.rgba[4 * static_cast<std::size_t>(y * pixels.width + x)];
        return pixel[0] < 90 && pixel[1] < 90 && pixel[2] < 90;
    };
    // Frames: the first and last dark pixels along a row and a column without ticks or texts.
    std::vector<int> across;
    for (int x = 0; x < 640; ++x) {
        if (dark(x, 100)) across.push_back(x);
    }
    ASSERT_FALSE(across.empty());
    EXPECT_NEAR(across.front(), 107.2, 1.5);
    EXPECT_NEAR(across.back(), 520.08, 1.5);
    std::vector<int> down;
    for (int y = 0; y < 480; ++y) {
        if (dark(110, y)) down.push_back(y);
    }
    ASSERT_FALSE(down.empty());
    EXPECT_NEAR(down.front(), 57.6, 1.5);
    EXPECT_NEAR(down.back(), 427.2, 1.5);
}

TEST(Geometry, LabelsThatNeedRoomGetItAndStayInside) {
    std::vector<std::string> tokens;
    for (int i = 0; i < 24; ++i) tokens.push_back("a token of some length, number " + std::to_string(i));
    viz::HeatmapOptions options;
    options.rows = tokens;
    options.columns = tokens;
    for (const auto& [width, height] : {std::pair{6.4, 4.8}, {10.0, 10.0}, {3.0, 3.0}, {20.0, 4.0}}) {
        options.width = width;
        options.height = height;
        const viz::Scene scene = viz::heatmap(ramp(24, 24, 0.0, 1.0), options).scene();
        for (const viz::Text& text : scene.texts) {
            const viz::Box box = viz::box_of(scene, text);
            EXPECT_GE(box.left, -1.0) << text.content << " at " << width;
            EXPECT_LE(box.bottom, scene.height + 1.0) << text.content << " at " << width;
        }
        const std::vector<viz::Text> rows = texts_of(scene, Role::y_tick);
        ASSERT_GE(rows.size(), 1U);
        if (width < 10.0) {
            EXPECT_NE(rows[0].content.find("\xE2\x80\xA6"), std::string::npos) << rows[0].content;
        }
        for (std::size_t i = 1; i < rows.size(); ++i) {
            EXPECT_GE(viz::box_of(scene, rows[i]).top, viz::box_of(scene, rows[i - 1]).bottom - 0.01);
        }
    }
}

TEST(Geometry, ColumnLabelsTurnBeforeTheyAreLeftOut) {
    const auto degrees = [](std::int64_t count, const std::string& token) {
        viz::HeatmapOptions options;
        options.columns.assign(static_cast<std::size_t>(count), token);
        const viz::Scene scene = viz::heatmap(ramp(4, count, 0.0, 1.0), options).scene();
        const std::vector<viz::Text> labels = texts_of(scene, Role::x_tick);
        return std::pair{labels.at(0).degrees, static_cast<std::int64_t>(labels.size())};
    };
    EXPECT_EQ(degrees(5, "word"), (std::pair{0.0, std::int64_t{5}}));
    EXPECT_EQ(degrees(5, "longer words"), (std::pair{45.0, std::int64_t{5}}));
    EXPECT_EQ(degrees(24, "word"), (std::pair{90.0, std::int64_t{24}}));
    const auto [turned, drawn] = degrees(200, "word");
    EXPECT_EQ(turned, 90.0);
    EXPECT_GT(drawn, 10);
    EXPECT_LT(drawn, 40);
}

TEST(Geometry, GridPanelsAreSquareApartAndShareOneBar) {
    Tensor weights(Shape{3, 5, 6, 6}, DType::float32);
    weights.view().fill(0.25);
    weights.at<float>({2, 4, 5, 5}) = 0.75F;
    const viz::Scene scene = viz::heatmap(weights, {}).scene();
    ASSERT_EQ(scene.images.size(), 15U);
    EXPECT_EQ(scene.frames.size(), 16U);
    for (std::size_t i = 0; i < scene.images.size(); ++i) {
        const viz::Box& box = scene.images[i].box;
        EXPECT_NEAR(box.width(), box.height(), 1e-6);
        for (std::size_t j = 0; j < i; ++j) {
            const viz::Box& other = scene.images[j].box;
            EXPECT_TRUE(box.left > other.right || other.left > box.right || box.top > other.bottom ||
                        other.top > box.bottom);
        }
    }
    // One scale: the quarter is the first colour everywhere, the largest the last.
    EXPECT_EQ(scene.images[0].rgba[0], 68);
    EXPECT_EQ(scene.images[14].rgba[4 * 35], 253);
    EXPECT_EQ(texts_of(scene, Role::panel).size(), 8U);
    EXPECT_EQ(texts_of(scene, Role::panel)[0].content, "Head 0");
}

}  // namespace
