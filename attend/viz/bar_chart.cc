#include <attend/viz/bar_chart.h>

#include <attend/core/error.h>
#include <attend/core/number_text.h>
#include <attend/viz/canvas.h>
#include <attend/viz/labels.h>
#include <attend/viz/ticks.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <utility>

namespace attend::viz {

namespace {

/// Okabe and Ito's colours but black and yellow, which white paper swallows; in an order of large contrasts.
constexpr std::array<Color, kMostBarSeries> kColors{{
    {0, 114, 178},    // blue
    {230, 159, 0},    // orange
    {0, 158, 115},    // bluish green
    {204, 121, 167},  // reddish purple
    {86, 180, 233},   // sky blue
    {213, 94, 0},     // vermilion
    {153, 153, 153},  // grey
}};

/// Sizes in points.
constexpr double kMargin = 8.0;
constexpr double kTitlePoints = 12.0;
constexpr double kTextPoints = 8.0;
constexpr double kLineHeight = 1.4;  // of the font size
constexpr double kPad = 3.5;
constexpr double kTick = 3.5;
constexpr double kBar = 5.0;
constexpr double kRowGap = 5.0;
constexpr double kSwatch = 8.0;
constexpr double kPanelWidth = 140.0;
constexpr double kPanelGap = 14.0;
/// The longest bar, as a part of the panel.
constexpr double kLongest = 0.96;

void require(bool holds, const std::string& expected, const std::string& found) {
    if (!holds) throw ValueError("bar_chart", "expected " + expected + ", found " + found);
}

void check(const BarChart& chart) {
    require(!chart.rows.empty(), "at least one row", "none");
    require(!chart.panels.empty(), "at least one panel", "none");
    require(!chart.series.empty() && chart.series.size() <= kMostBarSeries,
            "1 to " + std::to_string(kMostBarSeries) + " series", std::to_string(chart.series.size()));
    require(std::isfinite(chart.dpi) && chart.dpi >= 1.0, "1 or more dots per inch", number_text(chart.dpi));
    require(!chart.mark || (std::isfinite(*chart.mark) && *chart.mark >= 0.0), "a mark at 0 or more",
            number_text(chart.mark.value_or(0.0)));
    for (const BarPanel& panel : chart.panels) {
        require(panel.values.size() == chart.rows.size(), std::to_string(chart.rows.size()) + " rows of values",
                std::to_string(panel.values.size()));
        for (const auto& row : panel.values) {
            require(row.size() == chart.series.size(), std::to_string(chart.series.size()) + " values in a row",
                    std::to_string(row.size()));
            for (const std::optional<double>& value : row) {
                require(!value || (std::isfinite(*value) && *value >= 0.0), "values of 0 or more",
                        number_text(value.value_or(0.0)));
            }
        }
    }
}

double largest(const BarChart& chart) {
    double most = chart.mark.value_or(0.0);
    for (const BarPanel& panel : chart.panels) {
        for (const auto& row : panel.values) {
            for (const std::optional<double>& value : row) most = std::max(most, value.value_or(0.0));
        }
    }
    return most > 0.0 ? most : 1.0;
}

class BarLayout {
public:
    BarLayout(const BarChart& chart, const TextRuler& ruler) : chart_(chart), ruler_(ruler) {
        scene_.dpi = chart.dpi;
        scene_.font = visible_text(chart.font);
        scene_.title = visible_text(chart.title);
        scene_.description = visible_text(chart.x_label) + " of " + std::to_string(chart.series.size()) + " in " +
                             std::to_string(chart.rows.size()) + " cases, as bars.";
        high_ = largest(chart) / kLongest;
        for (const std::string& row : chart.rows) label_width_ = std::max(label_width_, width_of(row, kTextPoints));
        row_height_ = pixels(kBar * static_cast<double>(chart.series.size()) + kRowGap);
    }

    Scene scene() {
        const double line = pixels(kTextPoints * kLineHeight);
        const double left = pixels(kMargin) + label_width_ + pixels(kPad);
        const auto panels = static_cast<double>(chart_.panels.size());
        scene_.width = left + panels * pixels(kPanelWidth) + (panels - 1.0) * pixels(kPanelGap) + pixels(2.0 * kMargin);
        const double legend = pixels(kMargin) + pixels(kTitlePoints * kLineHeight);
        const double headings = add_legend(legend) + line;
        const double top = headings + pixels(kPad);
        const double bottom = top + row_height_ * static_cast<double>(chart_.rows.size());
        for (std::size_t row = 0; row < chart_.rows.size(); ++row) {
            const double middle = top + (static_cast<double>(row) + 0.5) * row_height_;
            add(Role::y_tick, chart_.rows[row], {left - pixels(kPad), middle + pixels(kAscent * kTextPoints) / 2},
                Anchor::end, kTextPoints);
        }
        for (std::size_t i = 0; i < chart_.panels.size(); ++i) {
            const double begin = left + static_cast<double>(i) * pixels(kPanelWidth + kPanelGap);
            const Box area{begin, top, begin + pixels(kPanelWidth), bottom};
            add(Role::panel, chart_.panels[i].title, {area.center().x, headings - pixels(kDescent * kTextPoints)},
                Anchor::middle, kTextPoints);
            add_panel(chart_.panels[i], area);
        }
        const double ticks = bottom + pixels(kTick + kPad) + line;
        add(Role::x_label, chart_.x_label,
            {left + (scene_.width - pixels(2.0 * kMargin) - left) / 2, ticks + pixels(kAscent * kTextPoints)},
            Anchor::middle, kTextPoints);
        scene_.height = ticks + line + pixels(kMargin);
        add(Role::title, chart_.title, {scene_.width / 2, pixels(kMargin + kAscent * kTitlePoints)}, Anchor::middle,
            kTitlePoints);
        return std::move(scene_);
    }

private:
    double pixels(double points) const { return scene_.pixels(points); }
    double width_of(const std::string& text, double points) const { return ruler_.width(visible_text(text), points); }

    void add(Role role, const std::string& content, Point at, Anchor anchor, double points) {
        if (content.empty()) return;
        scene_.texts.push_back({role, visible_text(content), at, anchor, points, 0.0, width_of(content, points)});
    }

    /// A scene has no primitive for a filled box but the cell: one of them is a bar.
    void add_bar(const Box& box, std::size_t series) {
        const Color& color = kColors.at(series);
        scene_.images.push_back({box, 1, 1, {color.red, color.green, color.blue, 255}});
    }

    /// Names beside their colours, in as many lines as they need. @return where the space below begins
    double add_legend(double top) {
        const double line = pixels(kTextPoints * kLineHeight);
        double x = pixels(kMargin);
        for (std::size_t series = 0; series < chart_.series.size(); ++series) {
            const std::string& name = chart_.series[series];
            const double needed = pixels(kSwatch + 4.0 * kPad) + width_of(name, kTextPoints);
            if (x + needed > scene_.width - pixels(kMargin) && x > pixels(kMargin)) {
                x = pixels(kMargin);
                top += line;
            }
            const double swatch = top + (line - pixels(kSwatch)) / 2;
            add_bar({x, swatch, x + pixels(kSwatch), swatch + pixels(kSwatch)}, series);
            add(Role::caption, name, {x + pixels(kSwatch + kPad), top + line / 2 + pixels(kAscent * kTextPoints) / 2},
                Anchor::start, kTextPoints);
            x += needed;
        }
        return top + line;
    }

    void add_panel(const BarPanel& panel, const Box& area) {
        const auto x_of = [&](double value) { return area.left + value / high_ * area.width(); };
        for (std::size_t row = 0; row < panel.values.size(); ++row) {
            const double top = area.top + static_cast<double>(row) * row_height_ + pixels(kRowGap) / 2;
            for (std::size_t series = 0; series < chart_.series.size(); ++series) {
                const std::optional<double>& value = panel.values[row][series];
                const double bar_top = top + static_cast<double>(series) * pixels(kBar);
                if (value && *value > 0.0) add_bar({area.left, bar_top, x_of(*value), bar_top + pixels(kBar)}, series);
            }
        }
        const std::vector<double> ticks =
            tick_positions(0.0, high_, most_intervals(kPanelWidth, kTextPoints, 3.0), false);
        const TickLabels labels = tick_labels(ticks);
        for (std::size_t i = 0; i < ticks.size(); ++i) {
            const double x = x_of(ticks[i]);
            scene_.lines.push_back({{x, area.bottom}, {x, area.bottom + pixels(kTick)}});
            add(Role::x_tick, labels.labels[i], {x, area.bottom + pixels(kTick + kPad + kAscent * kTextPoints)},
                Anchor::middle, kTextPoints);
        }
        if (chart_.mark) scene_.lines.push_back({{x_of(*chart_.mark), area.top}, {x_of(*chart_.mark), area.bottom}});
        scene_.frames.push_back(area);
    }

    const BarChart& chart_;
    const TextRuler& ruler_;
    Scene scene_;
    double high_ = 1.0;
    double label_width_ = 0.0;
    double row_height_ = 0.0;
};

}  // namespace

Figure bar_chart(const BarChart& chart) {
    check(chart);
    const std::unique_ptr<TextRuler> ruler = make_text_ruler(chart.font, chart.dpi);
    return {BarLayout(chart, *ruler).scene(), {}};
}

}  // namespace attend::viz
