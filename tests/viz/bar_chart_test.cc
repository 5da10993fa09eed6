// Bars: as long as their numbers say, in their rows, and refused where they make no picture.
#include <attend/core/error.h>
#include <attend/viz/bar_chart.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace {

using namespace attend;
using viz::BarChart;
using viz::Role;

BarChart two_by_two() {
    BarChart chart;
    chart.title = "attention";
    chart.x_label = "percent";
    chart.rows = {"short", "long <&>"};
    chart.series = {"attend", "torch"};
    chart.panels = {{"float32", {{80.0, 40.0}, {100.0, std::nullopt}}}, {"bfloat16", {{0.0, 20.0}, {60.0, 30.0}}}};
    chart.mark = 100.0;
    return chart;
}

viz::Text text_of(const viz::Scene& scene, Role role, const std::string& content) {
    for (const viz::Text& text : scene.texts) {
        if (text.role == role && text.content == content) return text;
    }
    ADD_FAILURE() << "no text '" << content << "'";
    return {};
}

/// The bars of `scene` without the legend's two swatches.
std::vector<viz::CellImage> bars_of(const viz::Scene& scene) {
    return {scene.images.begin() + 2, scene.images.end()};
}

TEST(BarChart, BarsAreAsLongAsTheirNumbers) {
    const viz::Scene scene = viz::bar_chart(two_by_two()).scene();
    const std::vector<viz::CellImage> bars = bars_of(scene);
    ASSERT_EQ(bars.size(), 6U) << "0 and nothing have none";
    const double eighty = bars[0].box.width();
    EXPECT_NEAR(bars[1].box.width(), eighty / 2, 1e-9);
    EXPECT_NEAR(bars[2].box.width(), eighty * 100 / 80, 1e-9);
    EXPECT_NEAR(bars[3].box.width(), eighty / 4, 1e-9) << "panels share a scale";
    ASSERT_EQ(scene.frames.size(), 2U);
    EXPECT_EQ(bars[0].box.left, scene.frames[0].left);
    EXPECT_EQ(bars[3].box.left, scene.frames[1].left);
    // The mark at 100 stands where the bar of 100 ends.
    const auto at_mark = [&](const viz::Line& line) {
        return std::abs(line.from.x - bars[2].box.right) < 1e-9 && line.from.x == line.to.x &&
               line.from.y == scene.frames[0].top && line.to.y == scene.frames[0].bottom;
    };
    EXPECT_EQ(std::count_if(scene.lines.begin(), scene.lines.end(), at_mark), 1);
}

TEST(BarChart, EveryThingIsInItsPlace) {
    const viz::Scene scene = viz::bar_chart(two_by_two()).scene();
    const std::vector<viz::CellImage> bars = bars_of(scene);
    // A row's label lies at the middle of its bars, a series has one colour, in the legend too.
    const viz::Box label = viz::box_of(scene, text_of(scene, Role::y_tick, "short"));
    EXPECT_GT(label.center().y, bars[0].box.top);
    EXPECT_LT(label.center().y, bars[1].box.bottom);
    EXPECT_LE(label.right, scene.frames[0].left);
    EXPECT_EQ(bars[0].rgba, scene.images[0].rgba);
    EXPECT_EQ(bars[1].rgba, scene.images[1].rgba);
    EXPECT_NE(bars[0].rgba, bars[1].rgba);
    static_cast<void>(text_of(scene, Role::panel, "bfloat16"));
    static_cast<void>(text_of(scene, Role::caption, "torch"));
    static_cast<void>(text_of(scene, Role::x_label, "percent"));
    for (const viz::Text& text : scene.texts) {
        const viz::Box box = viz::box_of(scene, text);
        EXPECT_GE(box.left, 0.0) << text.content;
        EXPECT_GE(box.top, 0.0) << text.content;
        EXPECT_LE(box.right, scene.width) << text.content;
        EXPECT_LE(box.bottom, scene.height) << text.content;
    }
    for (const viz::CellImage& bar : scene.images) {
        EXPECT_GE(bar.box.left, 0.0);
        EXPECT_LE(bar.box.right, scene.width);
        EXPECT_LE(bar.box.bottom, scene.height);
    }
}

TEST(BarChart, EveryWriterDrawsIt) {
    const viz::Figure figure = viz::bar_chart(two_by_two());
    const std::string svg = figure.bytes(viz::Format::svg);
    EXPECT_NE(svg.find(">long &lt;&amp;&gt;</text>"), std::string::npos);
    EXPECT_NE(svg.find("fill=\"#0072b2\""), std::string::npos);
    EXPECT_EQ(figure.bytes(viz::Format::pdf).rfind("%PDF", 0), 0U);
    EXPECT_GT(figure.pixels().width, 100);
}

TEST(BarChart, WhatMakesNoPictureIsRefused) {
    const auto refuses = [](const auto& change) {
        BarChart chart = two_by_two();
        change(chart);
        EXPECT_THROW(viz::bar_chart(chart), ValueError);
    };
    refuses([](BarChart& chart) { chart.rows.clear(); });
    refuses([](BarChart& chart) { chart.rows.pop_back(); });
    refuses([](BarChart& chart) { chart.series.clear(); });
    refuses([](BarChart& chart) { chart.series.push_back("third"); });
    refuses([](BarChart& chart) { chart.panels.clear(); });
    refuses([](BarChart& chart) { chart.panels[0].values[0][0] = -1.0; });
    refuses([](BarChart& chart) { chart.panels[0].values[0][0] = std::numeric_limits<double>::quiet_NaN(); });
    refuses([](BarChart& chart) { chart.mark = std::numeric_limits<double>::infinity(); });
    refuses([](BarChart& chart) { chart.dpi = 0.0; });
}

}  // namespace
