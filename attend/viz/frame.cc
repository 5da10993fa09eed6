#include <attend/viz/frame.h>

#include <attend/core/error.h>
#include <attend/core/number_text.h>
#include <attend/viz/labels.h>
#include <attend/viz/ticks.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace attend::viz {

namespace {

/// matplotlib's default subplot, as parts of the figure from its top left corner.
constexpr Box kSubplot{0.125, 0.12, 0.9, 0.89};
/// What a colour bar and the space before it take of the subplot's width, and how much narrower than high it is.
constexpr double kBarFraction = 0.15;
constexpr double kBarPad = 0.05;
constexpr double kBarAspect = 20.0;
constexpr double kOffsetPad = 3.0;
/// Points between texts and the figure's edge.
constexpr double kMargin = 3.0;

}  // namespace

Composer::Composer(const HeatmapOptions& options, double width_inches, double height_inches, const TextRuler& ruler)
    : options_(options), ruler_(ruler) {
    // Of pixels only PNG needs one; but the other formats' files would be empty pictures too.
    if (std::round(width_inches * options.dpi) < 1.0 || std::round(height_inches * options.dpi) < 1.0) {
        throw ValueError("heatmap", "expected a size and dots per inch that make at least a pixel a side, found " +
                                        number_text(width_inches) + " x " + number_text(height_inches) + " inches at " +
                                        number_text(options.dpi));
    }
    scene_.width = width_inches * options.dpi;
    scene_.height = height_inches * options.dpi;
    scene_.dpi = options.dpi;
    scene_.font = visible_text(options.font);
    scene_.title = visible_text(options.title);
}

Box Composer::map_area() const {
    const double width = kSubplot.width() * scene_.width;
    const double left = kSubplot.left * scene_.width;
    return {left, kSubplot.top * scene_.height, left + width * (1.0 - kBarFraction - kBarPad),
            kSubplot.bottom * scene_.height};
}

Text Composer::text(Role role, const std::string& content, Point at, Anchor anchor, double points, double most) const {
    Text text{role, content, at, anchor, points, 0.0, 0.0};
    const auto measure = [&](const std::string& candidate) { return ruler_.width(candidate, points); };
    text.content = shortened(content, most, measure);
    text.width = measure(text.content);
    return text;
}

void Composer::add_title(const Box& axes) {
    if (options_.title.empty()) return;
    const double half = std::min(axes.center().x, scene_.width - axes.center().x) - pixels(kMargin);
    add(text(Role::title, visible_text(options_.title), {axes.center().x, axes.top - pixels(kTitlePad)}, Anchor::middle,
             kTitlePoints, 2.0 * half));
}

void Composer::add_x_label(const Box& axes, double top) {
    if (options_.x_label.empty()) return;
    add(text(Role::x_label, visible_text(options_.x_label),
             {axes.center().x, top + pixels(kLabelPad + kAscent * kLabelPoints)}, Anchor::middle, kLabelPoints,
             scene_.width));
}

void Composer::add_y_label(const Box& axes, double right) {
    if (options_.y_label.empty()) return;
    Text label = text(Role::y_label, visible_text(options_.y_label),
                      {right - pixels(kLabelPad + kDescent * kLabelPoints), axes.center().y}, Anchor::middle,
                      kLabelPoints, scene_.height);
    label.degrees = 90.0;
    add(std::move(label));
}

void Composer::add_bar(const Box& area, const ColorLimits& limits) {
    const double subplot_width = kSubplot.width() * scene_.width;
    const double most_width = kBarFraction * subplot_width;
    const double width = std::min(most_width, area.height() / kBarAspect);
    const double height = width * kBarAspect;
    const double left = kSubplot.left * scene_.width + (1.0 - kBarFraction) * subplot_width;
    const Box box{left, area.center().y - height / 2, left + width, area.center().y + height / 2};
    scene_.bar = ColorBar{box, options_.colormap};
    scene_.frames.push_back(box);

    const std::vector<double> ticks =
        tick_positions(limits.low, limits.high, most_intervals(height * 72.0 / scene_.dpi, kLabelPoints, 2.0), false);
    const TickLabels labels = tick_labels(ticks);
    const double text_left = box.right + pixels(kTickLength + kTickPad);
    for (std::size_t i = 0; i < ticks.size(); ++i) {
        const double part = (ticks[i] / 2 - limits.low / 2) / (limits.high / 2 - limits.low / 2);
        const double y = box.bottom - part * box.height();
        scene_.lines.push_back({{box.right, y}, {box.right + pixels(kTickLength), y}});
        add(text(Role::bar_tick, labels.labels[i], {text_left, y + pixels(kAscent * kLabelPoints / 2)}, Anchor::start,
                 kLabelPoints, scene_.width));
    }
    if (!labels.offset.empty()) {
        add(text(Role::bar_offset, labels.offset, {box.right, box.top - pixels(kOffsetPad)}, Anchor::end, kLabelPoints,
                 scene_.width));
    }
}

void Composer::add_map(const TensorView& map, const std::optional<TensorView>& mask, const Box& box,
                       const ColorLimits& limits) {
    const auto most = [](double side) { return std::max<std::int64_t>(1, static_cast<std::int64_t>(side)); };
    const Cells cells = pooled(map, mask, most(box.height()), most(box.width()));
    const auto largest_block = [](std::int64_t all, std::int64_t blocks) { return (all + blocks - 1) / blocks; };
    pooled_rows_ = std::max(pooled_rows_, largest_block(map.size(0), cells.rows));
    pooled_columns_ = std::max(pooled_columns_, largest_block(map.size(1), cells.columns));
    scene_.images.push_back(colored(cells, box, options_.colormap, limits));
    const std::vector<Box> hatches = masked_boxes(cells, box);
    scene_.hatches.insert(scene_.hatches.end(), hatches.begin(), hatches.end());
    scene_.frames.push_back(box);
}

void Composer::add_caption() {
    std::string caption;
    if (pooled_rows_ > 1 || pooled_columns_ > 1) {
        caption = "Each dot: the maximum of up to " + std::to_string(pooled_rows_) + " x " +
                  std::to_string(pooled_columns_) + " cells.";
    }
    if (!scene_.hatches.empty()) caption += std::string(caption.empty() ? "" : " ") + "Hatched: masked.";
    if (caption.empty()) return;
    const double margin = pixels(kMargin);
    add(text(Role::caption, caption, {margin, scene_.height - pixels(kDescent * kCaptionPoints) - margin / 4},
             Anchor::start, kCaptionPoints, scene_.width - 2.0 * margin));
}

Scene Composer::finish(std::string description) {
    scene_.description = std::move(description);
    return std::move(scene_);
}

Box fitted(const Box& area, std::int64_t rows, std::int64_t columns, double least) {
    const double cell =
        std::min(area.width() / static_cast<double>(columns), area.height() / static_cast<double>(rows));
    const auto side = [&](std::int64_t cells, double most) {
        return std::min(std::max(cell * static_cast<double>(cells), least), most);
    };
    const double height = side(rows, area.height());
    const double top = area.center().y - height / 2;
    return {area.right - side(columns, area.width()), top, area.right, top + height};
}

}  // namespace attend::viz
