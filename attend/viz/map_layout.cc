#include <attend/viz/frame.h>
#include <attend/viz/labels.h>
#include <attend/viz/layout.h>
#include <attend/viz/ticks.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

namespace attend::viz {

namespace {

/// Labels may take this part of the figure's width or height; longer ones are shortened.
constexpr double kMostLabelPart = 0.28;
/// Points between neighbouring labels, and between labels and the figure's edge.
constexpr double kLabelGap = 3.0;

/// How one axis is labelled: every `every`-th cell, texts turned by `degrees`, `room` pixels deep from the axis.
struct AxisPlan {
    std::vector<std::int64_t> cells;
    std::vector<std::string> labels;
    double degrees = 0.0;
    double most_width = 0.0;
    double room = 0.0;
};

class MapLayout {
public:
    MapLayout(const Panel& panel, const HeatmapOptions& options, const ColorLimits& limits, const TextRuler& ruler)
        : panel_(panel),
          options_(options),
          limits_(limits),
          composer_(options, options.width.value_or(6.4), options.height.value_or(4.8), ruler),
          rows_(panel.map.size(0)),
          columns_(panel.map.size(1)) {
        for (const std::string& token : options.rows) row_labels_.push_back(visible_token(token));
        for (const std::string& token : options.columns) column_labels_.push_back(visible_token(token));
    }

    Scene scene() {
        Box area = composer_.map_area();
        Box axes = fitted(area, rows_, columns_, pixels(kThinnest));
        AxisPlan x = plan_x(axes);
        AxisPlan y = plan_y(axes);
        // Labels that need more room than matplotlib leaves move the edges of the area; fewer of them may fit then.
        for (int pass = 0; pass < 2; ++pass) {
            const double left = y.room + axis_label_room();
            const double bottom = composer_.scene().height - x.room - axis_label_room();
            if (axes.left >= left && axes.bottom <= bottom) break;
            if (axes.left < left) area.left = std::min(std::max(area.left, left), area.right - 1.0);
            if (axes.bottom > bottom) area.bottom = std::max(std::min(area.bottom, bottom), area.top + 1.0);
            axes = fitted(area, rows_, columns_, pixels(kThinnest));
            x = plan_x(axes);
            y = plan_y(axes);
        }
        composer_.add_map(panel_.map, panel_.mask, axes, limits_);
        composer_.add_bar(area, limits_);
        draw_x(axes, x);
        draw_y(axes, y);
        composer_.add_title(axes);
        composer_.add_x_label(axes, axes.bottom + x.room);
        composer_.add_y_label(axes, axes.left - y.room);
        composer_.add_caption();
        return composer_.finish(std::to_string(rows_) + " query by " + std::to_string(columns_) +
                                " key positions as a heat map.");
    }

private:
    double pixels(double points) const { return composer_.pixels(points); }
    double tick_room() const { return pixels(kTickLength + kTickPad); }
    double line_height() const { return pixels(kLabelPoints); }
    double axis_label_room() const { return pixels(kLabelPad + kLabelPoints + 1.0); }

    double widest(const std::vector<std::string>& labels, double most) const {
        double width = 0.0;
        for (const std::string& label : labels) {
            width = std::max(
                width, std::min(most, label.size() > kLongLabel ? most : composer_.width_of(label, kLabelPoints)));
            if (width >= most) break;
        }
        return width;
    }

    /// The first cells of every `every`, with their labels.
    static void choose(AxisPlan& plan, const std::vector<std::string>& labels, std::int64_t every) {
        for (std::int64_t i = 0; i < static_cast<std::int64_t>(labels.size()); i += every) {
            plan.cells.push_back(i);
            plan.labels.push_back(labels[static_cast<std::size_t>(i)]);
        }
    }

    static AxisPlan numbers(std::int64_t count, int intervals) {
        AxisPlan plan;
        for (const double tick : tick_positions(-0.5, static_cast<double>(count) - 0.5, intervals, true)) {
            if (tick < 0.0) continue;
            plan.cells.push_back(static_cast<std::int64_t>(tick));
            plan.labels.push_back(std::to_string(plan.cells.back()));
        }
        return plan;
    }

    static std::int64_t every_fitting(double needed, double cell) {
        return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::ceil(needed / cell)));
    }

    AxisPlan plan_x(const Box& axes) const {
        const double points = axes.width() * 72.0 / options_.dpi;
        AxisPlan plan;
        if (column_labels_.empty()) {
            plan = numbers(columns_, most_intervals(points, kLabelPoints, 3.0));
            plan.most_width = composer_.scene().width;
            plan.room = tick_room() + line_height();
            return plan;
        }
        const double cell = axes.width() / static_cast<double>(columns_);
        plan.most_width = kMostLabelPart * composer_.scene().height;
        const double width = widest(column_labels_, plan.most_width);
        const double slanted = line_height() * std::numbers::sqrt2;
        if (width + pixels(kLabelGap) <= cell) {
            choose(plan, column_labels_, 1);
            plan.room = tick_room() + line_height();
        } else if (slanted <= cell) {
            choose(plan, column_labels_, 1);
            plan.degrees = 45.0;
            plan.room = tick_room() + (width + line_height()) / std::numbers::sqrt2;
        } else {
            choose(plan, column_labels_, every_fitting(line_height(), cell));
            plan.degrees = 90.0;
            plan.room = tick_room() + widest(plan.labels, plan.most_width);
        }
        return plan;
    }

    AxisPlan plan_y(const Box& axes) const {
        AxisPlan plan;
        if (row_labels_.empty()) {
            plan = numbers(rows_, most_intervals(axes.height() * 72.0 / options_.dpi, kLabelPoints, 2.0));
            plan.most_width = composer_.scene().width;
        } else {
            choose(plan, row_labels_, every_fitting(line_height(), axes.height() / static_cast<double>(rows_)));
            plan.most_width = kMostLabelPart * composer_.scene().width;
        }
        plan.room = tick_room() + widest(plan.labels, plan.most_width);
        return plan;
    }

    void draw_x(const Box& axes, const AxisPlan& plan) {
        const double cell = axes.width() / static_cast<double>(columns_);
        const double top = axes.bottom + tick_room();
        const double radians = plan.degrees * std::numbers::pi / 180.0;
        for (std::size_t i = 0; i < plan.cells.size(); ++i) {
            const double x = axes.left + (static_cast<double>(plan.cells[i]) + 0.5) * cell;
            composer_.scene().lines.push_back({{x, axes.bottom}, {x, axes.bottom + pixels(kTickLength)}});
            Point at{x, top + pixels(kAscent * kLabelPoints)};
            Anchor anchor = Anchor::middle;
            if (plan.degrees != 0.0) {
                // The end of the text's middle line lies below the tick.
                const double half = pixels(kAscent * kLabelPoints) / 2;
                at = {x + half * std::sin(radians), top + half * std::cos(radians)};
                anchor = Anchor::end;
            }
            Text label = composer_.text(Role::x_tick, plan.labels[i], at, anchor, kLabelPoints, plan.most_width);
            label.degrees = plan.degrees;
            composer_.add(std::move(label));
        }
    }

    void draw_y(const Box& axes, const AxisPlan& plan) {
        const double cell = axes.height() / static_cast<double>(rows_);
        for (std::size_t i = 0; i < plan.cells.size(); ++i) {
            const double y = axes.top + (static_cast<double>(plan.cells[i]) + 0.5) * cell;
            composer_.scene().lines.push_back({{axes.left - pixels(kTickLength), y}, {axes.left, y}});
            composer_.add(composer_.text(Role::y_tick, plan.labels[i],
                                         {axes.left - tick_room(), y + pixels(kAscent * kLabelPoints) / 2}, Anchor::end,
                                         kLabelPoints, plan.most_width));
        }
    }

    /// Bytes beyond which a label is as wide as any may be; measuring it would only take time.
    static constexpr std::size_t kLongLabel = 256;

    const Panel& panel_;
    const HeatmapOptions& options_;
    const ColorLimits& limits_;
    Composer composer_;
    std::int64_t rows_;
    std::int64_t columns_;
    std::vector<std::string> row_labels_;
    std::vector<std::string> column_labels_;
};

}  // namespace

Scene lay_out_map(const Panel& panel, const HeatmapOptions& options, const ColorLimits& limits,
                  const TextRuler& ruler) {
    return MapLayout(panel, options, limits, ruler).scene();
}

}  // namespace attend::viz
